//! What comes from images and from inside, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

/// The account files of an image: user, `passwd`, `group`, and a further group, parted by form feeds. Ids are those of the
/// container, names are found where the files have them, and lines after the first that fits change nothing about it.
pub fn accounts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\u{c}');
    let mut next = || parts.next().unwrap_or_default();
    let (user, passwd, group) = (next(), next(), next());
    let further: Vec<String> = parts.next().map(str::to_owned).into_iter().collect();
    let explicit = user.contains(':');
    let found = super::user::from_texts(user, &further, explicit, passwd, group);
    let Ok(account) = found else { return };
    let ids = [account.uid, account.gid];
    assert!(account.groups.iter().chain(&ids).all(|id| *id < super::IDS), "ids are those of the container");
    assert!(account.home.starts_with('/'));
    assert!(account.groups.contains(&account.gid), "the group is among the groups");
    assert!(account.groups.is_sorted_by(|a, b| a < b), "each group once, in order");
    let name = user.split(':').next().unwrap_or_default();
    match name.parse::<u32>() {
        Ok(id) => assert_eq!(account.uid, id, "a number is that id"),
        Err(_) if name.is_empty() => assert_eq!(account.uid, 0),
        Err(_) => assert!(passwd.lines().any(|line| line.split(':').next() == Some(name)), "a name is in the file"),
    }
    let longer = format!("{}\n{name}:x:1:1::/other:\nroot:x:2:2::/other:\n", passwd.trim_end_matches('\n'));
    if passwd.lines().any(|line| line.split(':').next() == Some(name) && line.split(':').count() >= 4) {
        let again = super::user::from_texts(user, &further, explicit, &longer, group);
        assert_eq!(again.ok(), Some(account), "the first entry counts");
    }
}

/// An order to the keeper.
pub fn order(bytes: &[u8]) {
    if let Some((process, privileged)) = super::wire::decode(bytes) {
        let again = super::wire::decode(&super::wire::encode(&process, privileged));
        assert!(again == Some((process, privileged)), "what was understood is spelled back");
    }
}
