//! Filters of `ps`.

use super::show::Filter;

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

#[test]
fn filters_are_read_or_refused() {
    assert_eq!(filter("name=web"), Filter::Name("web".into()));
    assert_eq!(filter("label=a=b"), Filter::Label("a".into(), Some("b".into())));
    assert_eq!(filter("exited=137"), Filter::Exited(137));
    assert_eq!(filter("publish=80/udp"), Filter::Port(80, "udp".into(), true));
    for bad in ["name", "foo=bar", "status=up", "exited=x", "health=fine", "publish=x"] {
        assert!(Filter::parse(bad).is_err(), "{bad}");
    }
}
