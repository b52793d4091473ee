//! Filters of `ps`.

use super::show::Filter;

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

#[test]
fn filters_are_read_or_refused() {
    assert!(
        matches!(filter("label=a=b"), Filter::Label(key, Some(value)) if (key.as_str(), value.as_str()) == ("a", "b"))
    );
    assert!(matches!(filter("exited=137"), Filter::Exited(137)));
    assert!(matches!(filter("publish=80/udp"), Filter::Port(80, protocol, true) if protocol == "udp"));
    let Filter::Name(pattern) = filter("name=^(web|db)-[0-9]+$") else { panic!("a filter of names") };
    assert!(pattern.is_match("db-12") && !pattern.is_match("db-") && !pattern.is_match("mydb-1"));
    for bad in ["name", "name=(", "foo=bar", "status=up", "exited=x", "health=fine", "publish=x"] {
        assert!(Filter::parse(bad).is_err(), "{bad}");
    }
}
