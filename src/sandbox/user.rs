//! Who a process runs as: the forms of the image specification, resolved from the image's own account files.
//!
//! *OCI image-spec "config: User"*: empty, `user`, `uid`, `user:group`, `uid:gid`, `uid:group`, `user:gid`.

use super::error::{LaunchError, reason};
use crate::sys::open::read_regular;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// Ids of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, its own among them, in order.
    pub groups: Vec<u32>,
    /// Home directory, `/` when the user has no entry.
    pub home: String,
}

/// Number of ids a container has.
pub const IDS: u32 = 65_536;

/// Largest account file read.
const FILE_LIMIT: usize = 1 << 20;

/// Resolves a user and further groups inside a root.
///
/// # Errors
/// When a name has no entry, an id is 65536 or above, or an account file is not a regular file of at most 1 MiB.
pub(super) fn resolve(root: BorrowedFd<'_>, user: &str, further: &[String]) -> Result<Account, LaunchError> {
    let passwd = account_file(root, "etc/passwd")?;
    let explicit_group = user.contains(':');
    // Without groups asked for by name or for a user with an entry, the file need not be read.
    let group = account_file(root, "etc/group")?;
    from_texts(user, further, explicit_group, &passwd, &group)
}

fn account_file(root: BorrowedFd<'_>, path: &str) -> Result<String, LaunchError> {
    match read_regular(root, path, FILE_LIMIT) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(String::new()),
        Err(Errno::INVAL | Errno::NXIO) => {
            Err(LaunchError::refused(format!("read /{path} of the image: it is not a regular file")))
        }
        Err(Errno::FBIG) => Err(LaunchError::refused(format!("read /{path} of the image: it is larger than 1 MiB"))),
        Err(errno) => {
            let message = format!("read /{path} of the image: {}", reason(errno));
            Err(LaunchError { errno: errno.raw_os_error(), ..LaunchError::refused(message) })
        }
    }
}

pub(super) fn from_texts(
    user: &str,
    further: &[String],
    explicit_group: bool,
    passwd: &str,
    group: &str,
) -> Result<Account, LaunchError> {
    let (name, group_name) = user.split_once(':').unwrap_or((user, ""));
    let name = if name.is_empty() { "0" } else { name };
    let number = parse_id(name, "user")?;
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 4 && (fields[0] == name || number.is_some_and(|uid| fields[2].parse() == Ok(uid)))
    });
    let mut account = Account { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() };
    let mut login = None;
    match (&entry, number) {
        (Some(fields), _) => {
            account.uid = number.map_or_else(|| entry_id(fields[2], "/etc/passwd"), Ok)?;
            account.gid = entry_id(fields[3], "/etc/passwd")?;
            login = Some(fields[0]);
            if let Some(home) = fields.get(5).filter(|home| home.starts_with('/')) {
                account.home = (*home).to_owned();
            }
        }
        (None, Some(uid)) => account.uid = uid,
        (None, None) => {
            return Err(LaunchError::refused(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    }
    if explicit_group && !group_name.is_empty() {
        account.gid = group_id(group_name, group)?;
    } else if let Some(login) = login {
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if fields.len() >= 4 && fields[3].split(',').any(|member| member == login) {
                account.groups.push(entry_id(fields[2], "/etc/group")?);
            }
        }
    }
    for name in further {
        account.groups.push(group_id(name, group)?);
    }
    // The group itself is among them, as a login has it: without, the process could leave it and with it what the group
    // is denied (CVE-2022-36109).
    account.groups.push(account.gid);
    account.groups.sort_unstable();
    account.groups.dedup();
    Ok(account)
}

fn group_id(name: &str, group: &str) -> Result<u32, LaunchError> {
    let number = parse_id(name, "group")?;
    let named = group.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.len() >= 3 && f[0] == name);
    match (named, number) {
        (Some(fields), _) => entry_id(fields[2], "/etc/group"),
        (None, Some(gid)) => Ok(gid),
        (None, None) => {
            Err(LaunchError::refused(format!("unable to find group {name}: no matching entries in group file")))
        }
    }
}

/// Reads a number; `None` when the text is a name.
fn parse_id(text: &str, what: &str) -> Result<Option<u32>, LaunchError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id < IDS && !text.starts_with('+') => Ok(Some(id)),
        _ => Err(LaunchError::refused(format!("{what} id {text} is outside the container's ids 0 to {}", IDS - 1))),
    }
}

fn entry_id(text: &str, file: &str) -> Result<u32, LaunchError> {
    match text.parse::<u32>() {
        Ok(id) if id < IDS => Ok(id),
        _ => Err(LaunchError::refused(format!("{file} of the image has the id {text:?}, not a number below {IDS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1::/bin:\napp:x:1000:1001:App:/home/app:/bin/sh\n\
        broken\nhuge:x:70000:0::/:\nwrap:x:4294967296:0::/:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:root,app\napp:x:1001:\nwheel:x:10:app\nhuge:x:65536:\n";

    fn check(user: &str, further: &[&str], expected: Result<(u32, u32, &[u32], &str), &str>) {
        let further: Vec<String> = further.iter().map(|s| (*s).to_owned()).collect();
        let found = from_texts(user, &further, user.contains(':'), PASSWD, GROUP);
        match (found, expected) {
            (Ok(a), Ok(e)) => assert_eq!((a.uid, a.gid, a.groups.as_slice(), a.home.as_str()), e, "{user}"),
            (Err(a), Err(e)) => assert!(a.message.contains(e), "{user}: {a}"),
            (found, expected) => panic!("{user}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn every_form_of_the_image_specification() {
        check("", &[], Ok((0, 0, &[0, 4], "/root")));
        check("app", &[], Ok((1000, 1001, &[4, 10, 1001], "/home/app")));
        check("1000", &[], Ok((1000, 1001, &[4, 10, 1001], "/home/app")));
        check("app:adm", &[], Ok((1000, 4, &[4], "/home/app")));
        check("1000:7", &[], Ok((1000, 7, &[7], "/home/app")));
        check("1234:adm", &[], Ok((1234, 4, &[4], "/")));
        check("app:5", &["wheel", "99"], Ok((1000, 5, &[5, 10, 99], "/home/app")));
        check("1234", &[], Ok((1234, 0, &[0], "/")));
        check("65535:65535", &[], Ok((65535, 65535, &[65535], "/")));
    }

    #[test]
    fn ids_outside_the_range_are_errors() {
        for user in ["65536", "4294967296", "-1", "+5", "99999999999999999999", "huge", "wrap", "0:65536", "0:huge"] {
            check(user, &[], Err(if user.contains("huge") || user == "wrap" { "of the image has" } else { "outside" }));
        }
        check("nobody", &[], Err("unable to find user nobody"));
        check("app:none", &[], Err("unable to find group none"));
        check("0", &["65536"], Err("outside"));
    }
}
