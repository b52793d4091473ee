//! Carries a parsed template out.

use super::funcs::{self, FunctionError};
use super::print::{type_name, write_value};
use super::tree::{Call, List, Node, Operand, Pipe, Tree, What};
use super::{Missing, Options, TemplateError};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Most bytes one template may write.
const MAX_OUTPUT: usize = 16 << 20;
/// Most nodes and loop turns one template may take.
const MAX_STEPS: usize = 1_000_000;
/// Deepest nesting of `template` calls.
const MAX_CALLS: usize = 50;

/// A value that is borrowed from the data where it can be.
type Val<'d> = Cow<'d, Value>;

/// What follows a node.
enum Flow {
    Next,
    Break,
    Continue,
}

struct Exec<'d, 'o> {
    source: &'d str,
    tree: &'d Tree,
    options: Options<'o>,
    output: String,
    variables: Vec<(&'d str, Val<'d>)>,
    steps: usize,
    calls: usize,
}

/// Carries a template out on a value.
pub(super) fn run(source: &str, tree: &Tree, data: &Value, options: Options<'_>) -> Result<String, TemplateError> {
    let mut exec = Exec {
        source,
        tree,
        options,
        output: String::new(),
        variables: vec![("$", Cow::Borrowed(data))],
        steps: 0,
        calls: 0,
    };
    exec.list(&tree.root, &Cow::Borrowed(data))?;
    Ok(exec.output)
}

/// Tells whether Go's `if` takes a value for true.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Tells whether an object stands for a Go struct: all its keys look like exported fields.
fn is_struct(map: &Map<String, Value>) -> bool {
    !map.is_empty()
        && map.keys().all(|key| key.starts_with(|c: char| c.is_ascii_uppercase()) && !key.contains(['/', '.', ' ']))
}

impl<'d> Exec<'d, '_> {
    fn fail(&self, at: usize, text: &str, message: impl Into<String>) -> TemplateError {
        TemplateError::exec(self.source, at, text, message)
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(TemplateError("template: takes more than a million steps".to_owned()));
        }
        if self.output.len() > MAX_OUTPUT {
            return Err(TemplateError("template: writes more than 16 MiB".to_owned()));
        }
        Ok(())
    }

    fn list(&mut self, list: &'d List, dot: &Val<'d>) -> Result<Flow, TemplateError> {
        for node in list {
            match self.node(node, dot)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &'d Node, dot: &Val<'d>) -> Result<Flow, TemplateError> {
        self.step()?;
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    write_value(&mut self.output, &value, true);
                }
            }
            Node::Branch { pipe, then, other, with } => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = match truth(&value) {
                    true => self.list(then, if *with { &value } else { dot }),
                    false => self.list(other, dot),
                };
                self.variables.truncate(scope);
                return flow;
            }
            Node::Range { pipe, body, other } => self.range(pipe, body, other, dot)?,
            Node::Template { at, text, name, pipe } => self.template(*at, text, name, pipe.as_ref(), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn template(
        &mut self,
        at: usize,
        text: &str,
        name: &str,
        pipe: Option<&'d Pipe>,
        dot: &Val<'d>,
    ) -> Result<(), TemplateError> {
        let tree = self.tree;
        let list =
            tree.defined.get(name).ok_or_else(|| self.fail(at, text, format!("template {name:?} not defined")))?;
        if self.calls == MAX_CALLS {
            return Err(self.fail(at, text, format!("exceeded maximum template depth ({MAX_CALLS})")));
        }
        let value = match pipe {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Cow::Owned(Value::Null),
        };
        let outer = std::mem::replace(&mut self.variables, vec![("$", value.clone())]);
        self.calls += 1;
        let result = self.list(list, &value);
        self.calls -= 1;
        self.variables = outer;
        result.map(|_| ())
    }

    fn range(&mut self, pipe: &'d Pipe, body: &'d List, other: &'d List, dot: &Val<'d>) -> Result<(), TemplateError> {
        let scope = self.variables.len();
        let over = self.commands(pipe, dot)?;
        let items: Box<dyn Iterator<Item = (Value, Val<'d>)>> = match over {
            Cow::Borrowed(Value::Array(list)) => {
                Box::new(list.iter().enumerate().map(|(index, item)| (index.into(), Cow::Borrowed(item))))
            }
            Cow::Owned(Value::Array(list)) => {
                Box::new(list.into_iter().enumerate().map(|(index, item)| (index.into(), Cow::Owned(item))))
            }
            // Go ranges over maps in the order of their keys.
            Cow::Borrowed(Value::Object(map)) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                Box::new(entries.into_iter().map(|(key, item)| (key.clone().into(), Cow::Borrowed(item))))
            }
            Cow::Owned(Value::Object(map)) => {
                let mut entries: Vec<_> = map.into_iter().collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Box::new(entries.into_iter().map(|(key, item)| (key.into(), Cow::Owned(item))))
            }
            value => match value.as_ref() {
                Value::Null => Box::new(std::iter::empty()),
                Value::Number(number) if number.as_i64().is_some() => {
                    let count = number.as_i64().unwrap_or(0);
                    Box::new((0..count).map(|index| (index.into(), Cow::Owned(index.into()))))
                }
                other => {
                    let command = &pipe.commands[0];
                    let mut text = String::new();
                    write_value(&mut text, other, true);
                    return Err(self.fail(command.at, &command.text, format!("range can't iterate over {text}")));
                }
            },
        };
        let mut turned = false;
        for (key, item) in items {
            turned = true;
            self.step()?;
            self.variables.truncate(scope);
            self.bind_turn(pipe, key, &item);
            match self.list(body, &item)? {
                Flow::Break => break,
                Flow::Next | Flow::Continue => {}
            }
        }
        self.variables.truncate(scope);
        if !turned {
            self.list(other, dot)?;
        }
        Ok(())
    }

    /// Sets the variables of one turn: `$v :=` is the element, `$k, $v :=` key and element.
    fn bind_turn(&mut self, pipe: &'d Pipe, key: Value, item: &Val<'d>) {
        match &pipe.variables[..] {
            [element] => self.bind(element, item.clone(), pipe.assign),
            [index, element] => {
                self.bind(index, Cow::Owned(key), pipe.assign);
                self.bind(element, item.clone(), pipe.assign);
            }
            _ => {}
        }
    }

    fn bind(&mut self, name: &'d str, value: Val<'d>, assign: bool) {
        match self.variables.iter_mut().rev().find(|(known, _)| assign && *known == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name, value)),
        }
    }

    fn pipe(&mut self, pipe: &'d Pipe, dot: &Val<'d>) -> Result<Val<'d>, TemplateError> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            self.bind(name, value.clone(), pipe.assign);
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &'d Pipe, dot: &Val<'d>) -> Result<Val<'d>, TemplateError> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        // The parser gives every pipeline at least one command.
        Ok(last.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn command(&mut self, call: &'d Call, dot: &Val<'d>, last: Option<Val<'d>>) -> Result<Val<'d>, TemplateError> {
        self.step()?;
        let first = &call.operands[0];
        let arguments = &call.operands[1..];
        match &first.what {
            What::Function(name) if matches!(name.as_str(), "and" | "or") => self.and_or(name, call, dot, last),
            What::Function(name) => {
                let mut values = Vec::with_capacity(arguments.len() + 1);
                for argument in arguments {
                    values.push(self.operand(argument, dot)?);
                }
                values.extend(last);
                self.function(name, call, &values)
            }
            What::Field(path) if !arguments.is_empty() || last.is_some() => {
                let mut values = Vec::with_capacity(arguments.len() + 1);
                for argument in arguments {
                    values.push(self.operand(argument, dot)?);
                }
                values.extend(last);
                let (name, before) =
                    path.split_last().ok_or_else(|| self.fail(first.at, &first.text, "empty field"))?;
                let receiver = self.fields(dot.clone(), before, first)?;
                match (self.options.method)(&receiver, name, &values) {
                    Some(result) => result
                        .map(Cow::Owned)
                        .map_err(|error| self.fail(call.at, &call.text, format!("error calling {name}: {error}"))),
                    None => Err(self.fail(
                        first.at,
                        &first.text,
                        format!("{name} has arguments but cannot be invoked as function"),
                    )),
                }
            }
            _ if !arguments.is_empty() || last.is_some() => {
                Err(self.fail(first.at, &first.text, format!("can't give argument to non-function {}", first.text)))
            }
            What::Nil => Err(self.fail(first.at, &first.text, "nil is not a command")),
            _ => self.operand(first, dot),
        }
    }

    fn function(&mut self, name: &str, call: &Call, values: &[Val<'d>]) -> Result<Val<'d>, TemplateError> {
        funcs::call(name, values, self.options.header).map(Cow::Owned).map_err(|error| match error {
            FunctionError::Call(message) => self.fail(call.at, &call.text, format!("error calling {name}: {message}")),
            FunctionError::Count(wanted) => self.fail(
                call.at,
                &call.text,
                format!("wrong number of args for {name}: want {wanted} got {}", values.len()),
            ),
            FunctionError::Argument(index, message) => {
                let operand = call.operands.get(index + 1);
                let (at, text) = operand.map_or((call.at, call.text.as_str()), |operand| (operand.at, &operand.text));
                self.fail(at, text, message)
            }
        })
    }

    /// `and` and `or` stop at the first argument that decides.
    fn and_or(
        &mut self,
        name: &str,
        call: &'d Call,
        dot: &Val<'d>,
        last: Option<Val<'d>>,
    ) -> Result<Val<'d>, TemplateError> {
        let mut value = None;
        for operand in &call.operands[1..] {
            let next = self.operand(operand, dot)?;
            let decided = truth(&next) == (name == "or");
            value = Some(next);
            if decided {
                break;
            }
        }
        let decided = value.as_ref().is_some_and(|value| truth(value) == (name == "or"));
        if let (Some(last), false) = (last, decided) {
            value = Some(last);
        }
        value.ok_or_else(|| {
            self.fail(call.at, &call.text, format!("wrong number of args for {name}: want at least 1 got 0"))
        })
    }

    fn operand(&mut self, operand: &'d Operand, dot: &Val<'d>) -> Result<Val<'d>, TemplateError> {
        match &operand.what {
            What::Dot => Ok(dot.clone()),
            What::Nil => Ok(Cow::Owned(Value::Null)),
            What::Constant(value) => Ok(Cow::Borrowed(value)),
            What::Field(path) => self.fields(dot.clone(), path, operand),
            What::Variable(name, path) => {
                let value =
                    self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                let value =
                    value.ok_or_else(|| self.fail(operand.at, &operand.text, format!("undefined variable: {name}")))?;
                self.fields(value, path, operand)
            }
            What::Chain(pipe, path) => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot);
                self.variables.truncate(scope);
                self.fields(value?, path, operand)
            }
            What::Function(name) => {
                let call = Call { at: operand.at, text: operand.text.clone(), operands: Vec::new() };
                if matches!(name.as_str(), "and" | "or") {
                    return Err(self.fail(
                        operand.at,
                        name,
                        format!("wrong number of args for {name}: want at least 1 got 0"),
                    ));
                }
                self.function(name, &call, &[])
            }
        }
    }

    fn fields(&self, mut value: Val<'d>, path: &[String], operand: &Operand) -> Result<Val<'d>, TemplateError> {
        for name in path {
            value = self.field(value, name, operand)?;
        }
        Ok(value)
    }

    fn field(&self, value: Val<'d>, name: &str, operand: &Operand) -> Result<Val<'d>, TemplateError> {
        let fail = |message: String| Err(self.fail(operand.at, &operand.text, message));
        let found = match &value {
            Cow::Borrowed(Value::Object(map)) => lookup(map, name).map(Cow::Borrowed),
            Cow::Owned(Value::Object(map)) => lookup(map, name).cloned().map(Cow::Owned),
            other => {
                return match other.as_ref() {
                    Value::Null => fail(format!("nil pointer evaluating interface {{}}.{name}")),
                    other => fail(format!("can't evaluate field {name} in type {}", type_name(other))),
                };
            }
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some(result) = (self.options.method)(&value, name, &[]) {
            return result.map(Cow::Owned).or_else(fail);
        }
        match (value.as_ref(), self.options.missing) {
            (Value::Object(map), _) if !is_struct(map) => Ok(Cow::Owned(Value::Null)),
            (_, Missing::Key) => fail(format!("map has no entry for key {name:?}")),
            (_, Missing::Field(kind)) => fail(format!("can't evaluate field {name} in type {kind}")),
        }
    }
}

/// Finds a field; `ID` and `Id` are the Go and the JSON name of the same one.
fn lookup<'m>(map: &'m Map<String, Value>, name: &str) -> Option<&'m Value> {
    map.get(name).or_else(|| match name {
        "ID" => map.get("Id"),
        "Id" => map.get("ID"),
        _ => None,
    })
}
