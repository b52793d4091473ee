//! What Go prints, recorded from `docker context inspect default --format ...` of Docker's command line 28.2.

use super::{Missing, Options, Template, quote};
use serde_json::{Value, json};

fn data() -> Value {
    json!({
        "Name": "default",
        "Id": "0123",
        "Metadata": {},
        "Endpoints": {"docker": {"Host": "unix:///var/run/docker.sock", "SkipTLSVerify": false}},
        "List": [1, 2, 3],
        "Words": ["b", "a"],
        "Mixed": [1, null, "x", true, 1.5],
        "Labels": {"maintainer": "me", "com.x/y": "z"},
        "Nothing": null,
        "Float": 2.0,
        "Big": 1e21,
        "Text": "héllo",
    })
}

fn render(source: &str) -> Result<String, String> {
    let options = Options::plain(Missing::Field("context.contextWithTLSListing"));
    Template::parse(source).and_then(|template| template.render(&data(), options)).map_err(|error| error.to_string())
}

fn check(cases: &[(&str, &str)]) {
    for (source, wanted) in cases {
        assert_eq!(render(source).as_deref(), Ok(*wanted), "{source}");
    }
}

fn refuse(cases: &[(&str, &str)]) {
    for (source, wanted) in cases {
        assert_eq!(render(source).as_ref().map_err(String::as_str), Err(*wanted), "{source}");
    }
}

#[test]
fn values_are_printed_as_go_prints_them() {
    check(&[
        ("plain", "plain"),
        ("{{.Name}}", "default"),
        ("{{.ID}}{{.Id}}", "01230123"),
        ("{{.Endpoints.docker.Host}}", "unix:///var/run/docker.sock"),
        ("{{.Endpoints}}", "map[docker:map[Host:unix:///var/run/docker.sock SkipTLSVerify:false]]"),
        ("{{.List}} {{.Words}} {{.Metadata}}", "[1 2 3] [b a] map[]"),
        ("{{.Mixed}}", "[1 <nil> x true 1.5]"),
        ("{{.Nothing}} {{.Labels.gone}}", "<no value> <no value>"),
        ("{{.Float}} {{.Big}}", "2 1e+21"),
        (
            "{{1.5}} {{1e3}} {{true}} {{\"a\\tb\"}} {{`r`}} {{0x10}} {{'a'}} {{-3}} {{1_000}}",
            "1.5 1000 true a\tb r 16 97 -3 1000",
        ),
        ("{{\"\\u00e9\\x41\\101\\\"\"}}", "éAA\""),
        ("{{json .Labels}}", "{\"maintainer\":\"me\",\"com.x/y\":\"z\"}"),
        ("{{json \"<a>\"}}", "\"<a>\""),
        ("{{.}}", &{
            let mut text = String::new();
            super::print::write_value(&mut text, &data(), true);
            text
        }),
    ]);
}

#[test]
fn white_space_and_comments() {
    check(&[
        ("a {{- 1 -}} b", "a1b"),
        ("a {{- /* gone */ -}} b", "ab"),
        ("a{{/* x }} */}}b", "ab"),
        ("a\n\t{{- \"x\" }} b", "ax b"),
        ("{{ \"{{\" }}{{ \"}}\" }}", "{{}}"),
        ("{{-3}}", "-3"),
        ("{{ .Name\n}}", "default"),
        ("", ""),
    ]);
}

#[test]
fn control_structures() {
    check(&[
        ("{{if .Name}}a{{else}}b{{end}}", "a"),
        ("{{if 0}}a{{else if \"\"}}b{{else if .List}}c{{else}}d{{end}}", "c"),
        ("{{if .Metadata}}a{{end}}", ""),
        ("{{with .Endpoints.docker}}{{.Host}}{{end}}", "unix:///var/run/docker.sock"),
        ("{{with $x := 0}}a{{else}}b{{end}}", "b"),
        ("{{with 0}}a{{else with 5}}{{.}}{{end}}", "5"),
        ("{{range .List}}{{.}},{{end}}", "1,2,3,"),
        ("{{range $i, $v := .Words}}{{$i}}{{$v}} {{end}}", "0b 1a "),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "com.x/y=z;maintainer=me;"),
        ("{{range .Labels}}{{.}}{{end}}", "zme"),
        ("{{range $v := .Words}}{{$v}}{{end}}", "ba"),
        ("{{range .Metadata}}a{{else}}none{{end}}", "none"),
        ("{{range .Words}}x{{else}}none{{end}}", "xx"),
        ("{{range .Nothing}}a{{else}}b{{end}}", "b"),
        ("{{range 3}}{{.}},{{end}}", "0,1,2,"),
        ("{{range .List}}{{if eq . 2}}{{continue}}{{end}}{{.}}{{end}}", "13"),
        ("{{range .List}}{{if eq . 2}}{{break}}{{end}}{{.}}{{end}}", "1"),
        ("{{range .List}}{{range $.Words}}{{break}}{{end}}{{.}}{{end}}", "123"),
        ("{{range .List}}{{$.Name}}{{end}}", "defaultdefaultdefault"),
    ]);
}

#[test]
fn variables_and_their_scopes() {
    check(&[
        ("{{$x := 1}}{{$x = 2}}{{$x}}", "2"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}", "1"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$x := 0}}{{range .List}}{{$x = .}}{{end}}{{$x}}", "3"),
        ("{{$d := .Endpoints.docker}}{{$d.Host}}", "unix:///var/run/docker.sock"),
        ("{{$}}{{$x := .Name}}{{$x}}", &format!("{}default", render("{{.}}").unwrap())),
        ("{{if $x := .Name}}{{$x}}{{end}}", "default"),
        ("{{$a := 1}}{{$b := 2}}{{range $a, $b = .Words}}{{end}}{{$a}}{{$b}}", "1a"),
    ]);
}

#[test]
fn pipelines_and_parentheses() {
    check(&[
        ("{{.Name | upper | printf \"%q\"}}", "\"DEFAULT\""),
        ("{{(index .Endpoints \"docker\").Host}}", "unix:///var/run/docker.sock"),
        ("{{len (split \"a,b,c\" \",\")}}", "3"),
        ("{{\"x\" | printf \"%s%s\" \"y\"}}", "yx"),
        ("{{printf \"%d\" (len .Name)}}", "7"),
        ("{{not (eq .Name \"x\") | printf \"%v\"}}", "true"),
        ("{{define \"T\"}}x{{.}}{{end}}{{template \"T\" 3}}", "x3"),
        ("{{define \"T\"}}{{$.Host}}{{end}}{{template \"T\" .Endpoints.docker}}", "unix:///var/run/docker.sock"),
        ("{{block \"B\" .Name}}[{{.}}]{{end}}", "[default]"),
    ]);
}

#[test]
fn functions() {
    check(&[
        ("{{eq 1 2 1}} {{lt 1 2}} {{and 1 0}} {{or 0 \"x\"}} {{not 1}}", "true true 0 x false"),
        ("{{ne \"a\" \"b\"}} {{le 2 2}} {{gt 1 2}} {{ge 2 2}}", "true true false true"),
        ("{{and true (eq .Name \"default\") \"end\"}}", "end"),
        ("{{or .Nothing .Metadata.x}}", "<no value>"),
        ("{{and false (index .List 9)}}", "false"),
        (
            "{{index .List 1}} {{index .Labels \"com.x/y\"}} {{index .Endpoints \"docker\" \"Host\"}}",
            "2 z unix:///var/run/docker.sock",
        ),
        ("{{index .Labels \"gone\"}}|{{index .Endpoints \"gone\"}}", "|<no value>"),
        ("{{index \"abc\" 1}}", "98"),
        ("{{slice \"hello\" 1 3}} {{slice .List 1}} {{slice .List 0 2}}", "el [2 3] [1 2]"),
        ("{{len .Name}} {{len .List}} {{len .Labels}} {{len .Text}}", "7 3 2 6"),
        ("{{print 1 2 \"a\" \"b\" 3}}", "1 2ab3"),
        ("{{println \"x\" 1}}|", "x 1\n|"),
        (
            "{{truncate \"hello\" 2}}|{{truncate \"hi\" 9}}|{{pad \"x\" 2 3}}|{{pad \"\" 2 3}}|{{title \"hello big world\"}}",
            "he|hi|  x   ||Hello Big World",
        ),
        ("{{split \"a,b\" \",\"}} {{join .Words \"-\"}} {{lower \"AB\"}} {{upper \"ab\"}}", "[a b] b-a ab AB"),
        ("{{html \"<a href='x'>&\"}} {{urlquery \"a b&c\"}}", "&lt;a href=&#39;x&#39;&gt;&amp; a+b%26c"),
        ("{{js \"it's <b>\"}}", "it\\'s \\u003Cb\\u003E"),
        ("{{eq .Nothing nil}}", "true"),
    ]);
}

#[test]
fn formatted_printing() {
    check(&[
        (
            "{{printf \"%5d|%-5d|%05d|%x|%q|%t|%6.2f|%c|%U|%e|%g\" 42 42 42 255 \"hi\" true 3.14159 65 65 1234.5 1e21}}",
            "   42|42   |00042|ff|\"hi\"|true|  3.14|A|U+0041|1.234500e+03|1e+21",
        ),
        ("{{printf \"%d\" \"x\"}}", "%!d(string=x)"),
        ("{{printf \"%s\" 1}}", "%!s(int=1)"),
        ("{{printf \"%!\"}}{{printf \"%d\"}}{{printf \"x\" 1}}", "%!!(MISSING)%!d(MISSING)x%!(EXTRA int=1)"),
        ("{{printf \"%\"}}", "%!(NOVERB)"),
        ("{{printf \"100%%\"}}", "100%"),
        ("{{printf \"%s %q\" .Words .Words}}", "[b a] [\"b\" \"a\"]"),
        ("{{printf \"%+d %+d % d\" 5 -5 5}}", "+5 -5  5"),
        ("{{printf \"%-6s|%6s|%.2s\" \"ab\" \"ab\" \"abc\"}}", "ab    |    ab|ab"),
        ("{{printf \"%*d\" 4 7}}", "   7"),
        ("{{printf \"%x %X\" \"hi\" \"hi\"}}", "6869 6869"),
        ("{{printf \"%o %b %#x\" 8 5 255}}", "10 101 0xff"),
        ("{{printf \"%T %T %T\" 1 \"a\" true}}", "int string bool"),
        ("{{printf \"%v %v\" .Nothing .List}}", "<nil> [1 2 3]"),
        ("{{printf \"%.3g %.1f %g\" 1234.5 0.25 0.00001}}", "1.23e+03 0.2 1e-05"),
        ("{{printf \"%06.2f %-8.1f|\" 3.14159 -2.5}}", "003.14 -2.5    |"),
        ("{{printf \"%v\" 100000000.0}}", "1e+08"),
    ]);
}

#[test]
fn bad_templates_are_refused_in_gos_words() {
    refuse(&[
        ("{{foo}}", "template: :1: function \"foo\" not defined"),
        ("{{range .}}", "template: :1: unexpected EOF"),
        ("{{if}}", "template: :1: missing value for if"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{else}}", "template: :1: unexpected {{else}}"),
        ("{{$y}}", "template: :1: undefined variable \"$y\""),
        ("{{$y = 1}}", "template: :1: undefined variable \"$y\""),
        ("{{if $x := 1}}{{end}}{{$x}}", "template: :1: undefined variable \"$x\""),
        ("{{ \"abc }}", "template: :1: unterminated quoted string"),
        ("{{`abc", "template: :1: unterminated raw quoted string"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{range .}}{{end}}{{continue}}", "template: :1: {{continue}} outside {{range}}"),
        ("{{if 1}}a", "template: :1: unexpected EOF"),
        ("{{ .Name }", "template: :1: unexpected \"}\" in operand"),
        ("{{1 | 2}}", "template: :1: non executable command in pipeline stage 2"),
        ("{{.Name |}}", "template: :1: missing value for command"),
        ("{{/* a }}", "template: :1: unclosed comment"),
        ("{{(1}}", "template: :1: unclosed left paren"),
        ("{{1)}}", "template: :1: unexpected right paren"),
        ("{{.Name", "template: :1: unclosed action"),
        ("\n\n{{1x}}", "template: :3: bad number syntax: \"1x\""),
        ("{{.a-b}}", "template: :1: bad character U+002D '-'"),
        ("{{\"a\"\"b\"}}", "template: :1: unexpected \"\\\"b\\\"\" in operand"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "template: :1: unexpected {{else}}"),
    ]);
}

#[test]
fn failures_name_their_position() {
    refuse(&[
        (
            "{{.Foo}}",
            "template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type context.contextWithTLSListing",
        ),
        ("{{.Name.Foo}}", "template: :1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type string"),
        ("{{len 3}}", "template: :1:2: executing \"\" at <len 3>: error calling len: len of type int"),
        ("{{nil}}", "template: :1:2: executing \"\" at <nil>: nil is not a command"),
        (
            "{{eq 1 \"a\"}}",
            "template: :1:2: executing \"\" at <eq 1 \"a\">: error calling eq: incompatible types for comparison",
        ),
        ("{{lower 1}}", "template: :1:8: executing \"\" at <1>: expected string; found 1"),
        (
            "{{join .Name \",\"}}",
            "template: :1:7: executing \"\" at <.Name>: wrong type for value; expected []string; got string",
        ),
        ("{{\"a\" \"b\"}}", "template: :1:2: executing \"\" at <\"a\">: can't give argument to non-function \"a\""),
        (
            "x\n {{index .Nothing 1}}",
            "template: :2:3: executing \"\" at <index .Nothing 1>: error calling index: index of untyped nil",
        ),
        (
            "{{index .List 9}}",
            "template: :1:2: executing \"\" at <index .List 9>: error calling index: index out of range: 9",
        ),
        ("{{.Nothing.X}}", "template: :1:10: executing \"\" at <.Nothing.X>: nil pointer evaluating interface {}.X"),
        ("{{range .Name}}{{end}}", "template: :1:8: executing \"\" at <.Name>: range can't iterate over default"),
        (
            "{{.Name 1}}",
            "template: :1:2: executing \"\" at <.Name>: Name has arguments but cannot be invoked as function",
        ),
        ("{{upper}}", "template: :1:2: executing \"\" at <upper>: wrong number of args for upper: want 1 got 0"),
    ]);
    let error = render("{{template \"Q\"}}").unwrap_err();
    assert!(error.contains("template \"Q\" not defined"), "{error}");
}

#[test]
fn hostile_templates_end() {
    for source in [
        "{{range 100000000}}{{end}}".to_owned(),
        "{{define \"T\"}}{{template \"T\"}}{{end}}{{template \"T\"}}".to_owned(),
        "{{range 10000}}{{range 10000}}{{printf \"%4000d\" 1}}{{end}}{{end}}".to_owned(),
        format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000)),
        "{{if 1}}".repeat(100_000),
        "{{if 1}}{{else ".repeat(100_000),
        format!("{{{{if 1}}}}{}", "{{else if 1}}".repeat(100_000)),
        "{{printf \"%999999999d\" 1}}{{".to_owned(),
    ] {
        assert!(render(&source).is_err(), "{}", &source[..30]);
    }
}

#[test]
fn methods_are_called_with_their_arguments() {
    let method = |_: &Value, name: &str, arguments: &[std::borrow::Cow<'_, Value>]| {
        (name == "Label").then(|| match arguments {
            [key] => Ok(format!("<{}>", key.as_str().unwrap_or_default()).into()),
            _ => Err("one label at a time".to_owned()),
        })
    };
    let options = Options { missing: Missing::Key, method: &method, header: false };
    let run =
        |source: &str| Template::parse(source).unwrap().render(&data(), options).map_err(|error| error.to_string());
    assert_eq!(run("{{.Label \"a\"}}").as_deref(), Ok("<a>"));
    assert_eq!(run("{{\"a\" | .Label | upper}}").as_deref(), Ok("<A>"));
    assert!(run("{{.Label}}").unwrap_err().contains("one label at a time"));
    assert!(run("{{.Gone}}").unwrap_err().ends_with("map has no entry for key \"Gone\""));
}

#[test]
fn texts_are_quoted_as_in_go() {
    assert_eq!(quote("a\"b\\c\n\u{1b}é…\u{202e}"), r#""a\"b\\c\n\x1bé…\u202e""#);
}

proptest::proptest! {
    #[test]
    fn no_template_panics(source in "(\\{\\{|\\}\\}|[a-z.$()|\" :=,0-9-]|if |range |end|else|define |with ){0,40}") {
        let _ = render(&source);
    }
}
