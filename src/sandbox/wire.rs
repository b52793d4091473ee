//! How a [`Process`] travels to the keeper: lengths and bytes, so that the keeper touches no parser.

use super::bundle::Process;

/// Longest request taken, far above what execve(2) accepts.
pub(super) const LIMIT: usize = 8 << 20;

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn text(&mut self, value: &str) {
        self.number(value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
    }
    fn texts(&mut self, values: &[String]) {
        self.number(values.len() as u64);
        values.iter().for_each(|value| self.text(value));
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_at_checked(8)?;
        self.0 = rest;
        Some(u64::from_le_bytes(head.try_into().ok()?))
    }
    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).ok()
    }
    fn texts(&mut self) -> Option<Vec<String>> {
        let count = self.number()?;
        // Each text takes at least eight bytes: a count beyond that is a lie.
        if count > self.0.len() as u64 / 8 {
            return None;
        }
        (0..count).map(|_| self.text()).collect()
    }
}

/// Spells a process and whether it is privileged.
pub(super) fn encode(process: &Process, privileged: bool) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(1024));
    out.number(u64::from(privileged));
    out.texts(&process.args);
    out.texts(&process.env);
    out.text(&process.cwd);
    out.text(&process.user);
    out.texts(&process.groups);
    out.number(u64::from(process.tty));
    let (rows, columns) = process.tty_size.unwrap_or((u16::MAX, u16::MAX));
    out.number(u64::from(process.tty_size.is_some()));
    out.number(u64::from(rows));
    out.number(u64::from(columns));
    out.number(process.rlimits.len() as u64);
    for (name, soft, hard) in &process.rlimits {
        out.text(name);
        out.number(*soft);
        out.number(*hard);
    }
    out.number(process.oom_score_adj as u32 as u64);
    out.0
}

/// Reads what [`encode`] spelt; `None` when it is not that.
pub(super) fn decode(bytes: &[u8]) -> Option<(Process, bool)> {
    let mut input = Reader(bytes);
    let privileged = input.number()? != 0;
    let (args, env) = (input.texts()?, input.texts()?);
    let (cwd, user, groups) = (input.text()?, input.text()?, input.texts()?);
    let tty = input.number()? != 0;
    let sized = input.number()? != 0;
    let size = (input.number()? as u16, input.number()? as u16);
    let count = input.number()?.min(64);
    let rlimits =
        (0..count).map(|_| Some((input.text()?, input.number()?, input.number()?))).collect::<Option<Vec<_>>>()?;
    let oom_score_adj = input.number()? as u32 as i32;
    let tty_size = sized.then_some(size);
    Some((Process { args, env, cwd, user, groups, tty, tty_size, rlimits, oom_score_adj }, privileged))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process {
            args: vec!["sh".into(), String::new(), "ä b".into()],
            env: vec!["A=1".into()],
            cwd: "/x".into(),
            user: "1:2".into(),
            groups: vec!["adm".into()],
            tty: true,
            tty_size: Some((24, 80)),
            rlimits: vec![("nofile".into(), 1, u64::MAX)],
            oom_score_adj: -5,
        }
    }

    #[test]
    fn a_process_survives_the_wire() {
        let bytes = encode(&process(), true);
        assert_eq!(decode(&bytes), Some((process(), true)));
    }

    #[test]
    fn a_cut_request_is_refused_everywhere() {
        let bytes = encode(&process(), false);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "{length}");
        }
    }
}
