//! `--format`: tables, JSON lines and templates over rows of fields.

use super::error::{Failure, exit};
use super::table::align;
use super::template::{Missing, Options, Template, TemplateError};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A list of things to show.
pub(super) struct Listing {
    /// Name of the rows' type in messages about unknown fields.
    pub(super) kind: &'static str,
    /// All fields and their headers, in the order of the names.
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// Fields of the table shown without `--format`.
    pub(super) columns: Vec<&'static str>,
    /// The rows.
    pub(super) rows: Vec<Row>,
}

/// One row.
#[derive(Default)]
pub(super) struct Row {
    /// Values by field.
    pub(super) fields: Map<String, Value>,
    /// Labels, for `{{.Label "key"}}`.
    pub(super) labels: Vec<(String, String)>,
}

impl Row {
    /// Makes a row from fields and values.
    pub(super) fn new(fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect();
        Self { fields, labels: Vec::new() }
    }
}

/// Returns the failure for a template.
pub(super) fn bad_template(error: &TemplateError) -> Failure {
    Failure::new(exit::FAILED, format!("template parsing error: {error}"))
}

impl Listing {
    /// Writes the list in a format: nothing or `table` for the table, `json`, `table TEMPLATE`, or a template.
    ///
    /// # Errors
    /// When the template is refused or fails.
    pub(super) fn render(&self, format: Option<&str>) -> Result<String, Failure> {
        let format = format.unwrap_or("table").trim_start_matches(' ');
        if format == "json" {
            return self.json();
        }
        match format.strip_prefix("table") {
            Some(rest) if rest.trim().is_empty() => {
                let cells: Vec<String> = self.columns.iter().map(|column| format!("{{{{.{column}}}}}")).collect();
                self.template(&cells.join("\t"), true)
            }
            Some(rest) if rest.starts_with([' ', '\\', '\t']) => {
                self.template(&unescape(rest.trim_start_matches(' ')), true)
            }
            _ => self.template(&unescape(format), false),
        }
    }

    fn json(&self) -> Result<String, Failure> {
        let mut out = String::new();
        for row in &self.rows {
            let mut fields: Vec<_> = row.fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let sorted: Map<String, Value> =
                fields.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            out.push_str(&Value::Object(sorted).to_string());
            out.push('\n');
        }
        Ok(out)
    }

    fn template(&self, source: &str, table: bool) -> Result<String, Failure> {
        let template = Template::parse(source).map_err(|error| bad_template(&error))?;
        let mut out = String::new();
        if table {
            let headers = self.headers.iter().map(|(key, header)| ((*key).to_owned(), (*header).into())).collect();
            let options = Options { missing: Missing::Key, method: &header_method, header: true };
            out.push_str(&template.render(&Value::Object(headers), options).map_err(|error| bad_template(&error))?);
            out.push('\n');
        }
        for row in &self.rows {
            let method = |_: &Value, name: &str, arguments: &[Cow<'_, Value>]| label(row, name, arguments);
            let options = Options { missing: Missing::Field(self.kind), method: &method, header: false };
            let data = Value::Object(row.fields.clone());
            out.push_str(&template.render(&data, options).map_err(|error| bad_template(&error))?);
            out.push('\n');
        }
        Ok(if table { align(&out) } else { out })
    }
}

/// `{{.Label "key"}}` of a row.
fn label(row: &Row, name: &str, arguments: &[Cow<'_, Value>]) -> Option<Result<Value, String>> {
    if name != "Label" {
        return None;
    }
    let [key] = arguments else { return Some(Err("Label takes the name of one label".to_owned())) };
    let found = row.labels.iter().find(|(label, _)| key.as_str() == Some(label)).map(|(_, value)| value.clone());
    Some(Ok(found.unwrap_or_default().into()))
}

/// What a header shows for fields without one: nothing, and for labels the end of their names.
fn header_method(_: &Value, name: &str, arguments: &[Cow<'_, Value>]) -> Option<Result<Value, String>> {
    let text = match (name, arguments) {
        ("Label", [key]) => {
            let last = key.as_str().unwrap_or_default().rsplit('.').next().unwrap_or_default();
            last.replace(['-', '_'], " ").to_uppercase()
        }
        _ => String::new(),
    };
    Some(Ok(text.into()))
}

/// Replaces the escapes a shell leaves in `--format '{{.A}}\t{{.B}}'`.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Writes objects as `inspect` does: an array, four blanks deep; or a template carried out on each, a line each.
///
/// # Errors
/// When the template is refused or fails.
pub(super) fn inspect(objects: &[Value], format: Option<&str>) -> Result<String, Failure> {
    let mut out = String::new();
    match format {
        None | Some("") => out.push_str(&pretty(&Value::Array(objects.to_vec()))),
        Some("json") => out.push_str(&Value::Array(objects.to_vec()).to_string()),
        Some(source) => {
            let template = Template::parse(source).map_err(|error| bad_template(&error))?;
            for object in objects {
                out.push_str(
                    &template.render(object, Options::plain(Missing::Key)).map_err(|error| bad_template(&error))?,
                );
                out.push('\n');
            }
            return Ok(out);
        }
    }
    out.push('\n');
    Ok(out)
}

/// Writes JSON four blanks deep, as Docker does.
fn pretty(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listing() -> Listing {
        let mut row = Row::new([("Name", "web".to_owned()), ("ID", "0123".to_owned())]);
        row.labels.push(("com.x.my-key".to_owned(), "v".to_owned()));
        Listing {
            kind: "*formatter.T",
            headers: &[("ID", "CONTAINER ID"), ("Name", "NAMES")],
            columns: vec!["ID", "Name"],
            rows: vec![row],
        }
    }

    fn check(format: Option<&str>, wanted: &str) {
        assert_eq!(listing().render(format).unwrap(), wanted, "{format:?}");
    }

    #[test]
    fn lists_are_written_in_every_format() {
        check(None, "CONTAINER ID   NAMES\n0123           web\n");
        check(Some("table"), "CONTAINER ID   NAMES\n0123           web\n");
        check(Some("json"), "{\"ID\":\"0123\",\"Name\":\"web\"}\n");
        check(Some("{{.ID}}\\t{{.Name}}"), "0123\tweb\n");
        check(Some("table {{.Name}}\\t{{.ID}}"), "NAMES     CONTAINER ID\nweb       0123\n");
        check(Some("table {{upper .Name}}"), "NAMES\nWEB\n");
        check(Some("{{json .}}"), "{\"Name\":\"web\",\"ID\":\"0123\"}\n");
        check(Some("table {{.Label \"com.x.my-key\"}}"), "MY KEY\nv\n");
        check(Some("{{.Label \"gone\"}}|"), "|\n");
    }

    #[test]
    fn unknown_fields_fail_in_dockers_words() {
        let failure = listing().render(Some("{{.Foo}}")).unwrap_err().render(false);
        assert_eq!(
            failure,
            "error: template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.T\n"
        );
    }

    #[test]
    fn inspected_objects_are_an_array_or_lines() {
        let objects = [json!({"Id": "a", "Labels": {}})];
        assert_eq!(
            inspect(&objects, None).unwrap(),
            "[\n    {\n        \"Id\": \"a\",\n        \"Labels\": {}\n    }\n]\n"
        );
        assert_eq!(inspect(&objects, Some("{{.Id}}")).unwrap(), "a\n");
        assert_eq!(inspect(&[], None).unwrap(), "[]\n");
    }
}
