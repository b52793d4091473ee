//! `login` and `logout`.

use crate::cli::context::{Context, out, talk};
use crate::cli::error::{Failure, Outcome, exit};
use crate::cli::flags::{Flags, Parsed, switch, value};
use crate::cli::terminal::{Signals, stdin_is_terminal};
use crate::config::credential_key;
use crate::engine::{Attention, CredentialError, EngineError, Keeper, Logins};
use crate::image::registry::Credential;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::Read;
use std::os::fd::AsFd;

/// Longest password on stdin, in bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// Flags of `login`.
pub(super) fn login_flags(flags: Flags) -> Flags {
    flags
        .arg(value("password", "string", "Password or personal access token").short('p'))
        .arg(switch("password-stdin", "Take the password from stdin"))
        .arg(value("username", "string", "Username").short('u'))
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        Self::from_error(exit::FAILED, &error)
    }
}

/// Returns the registry an argument means, as image names have it.
fn registry(parsed: &Parsed) -> Result<String, Failure> {
    let text = parsed.arguments.first().map_or("docker.io", String::as_str);
    let key = credential_key(text);
    let name = if key.contains("://") { "docker.io" } else { key };
    // What is no registry of an image name cannot be pulled from.
    match format!("{name}/x").parse::<crate::oci::Reference>() {
        Ok(reference) if reference.registry == name => Ok(name.to_owned()),
        Ok(_) => Err(Failure::failed(format!("{text:?} is not a registry: its name needs a dot or a port"))),
        Err(_) => Err(Failure::failed(format!("{text:?} is not a registry"))),
    }
}

/// `login`.
pub(super) fn login(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let registry = registry(&parsed)?;
    let logins = Logins::of_user();
    let from_stdin = parsed.switch("password-stdin")?;
    let (username, password) = (parsed.filled("username"), parsed.filled("password"));
    if from_stdin && password.is_some() {
        return Err(parsed.conflict("--password and --password-stdin are mutually exclusive"));
    }
    if from_stdin && username.is_none() {
        return Err(Failure::failed("Must provide --username with --password-stdin"));
    }
    if password.is_some() {
        talk("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
    }
    let engine = context.engine()?;
    let verify = |credential: &Credential| {
        let signals = Signals::take_endings()?;
        let attention = Attention { interrupt: Some(signals.as_fd()), tell: &|_| {}, notice: &|_| {} };
        engine.login(&registry, credential, attention).map_err(|error| match error {
            EngineError::Interrupted => Failure::new(130, "the login was interrupted"),
            other => Failure::of_engine(exit::FAILED, &other).about(&format!("log in to {registry}")),
        })
    };
    if username.is_none()
        && password.is_none()
        && let Some(known) = logins.get(&registry)?
    {
        talk("Authenticating with existing credentials...\n");
        if verify(&known).is_ok() {
            out("Login Succeeded\n")?;
            return Ok(0);
        }
        talk("They are not taken any more.\n");
    }
    let username = match username {
        Some(username) => username,
        None => ask(&format!("Username for {registry}: "), true)?,
    };
    let password = match password {
        Some(password) => password,
        None if from_stdin => password_on_stdin()?,
        None => ask("Password: ", false)?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::failed("username and password must not be empty"));
    }
    if username.contains(':') {
        return Err(Failure::failed("a username cannot contain a colon"));
    }
    verify(&Credential::Password { username: username.clone(), password: password.clone() })?;
    if let Keeper::File(path) = logins.keep(&registry, &username, &password)? {
        talk(format!(
            "WARNING! The password is stored unencrypted in {}.\n\"credsStore\" there names a credential helper that keeps it better.\n",
            path.display()
        ));
    }
    out("Login Succeeded\n")?;
    Ok(0)
}

/// `logout`.
pub(super) fn logout(_: &Context<'_>, parsed: Parsed) -> Outcome {
    let registry = registry(&parsed)?;
    match Logins::of_user().forget(&registry)? {
        true => out(format!("Removing login credentials for {}\n", credential_key(&registry)))?,
        false => out(format!("Not logged in to {}\n", credential_key(&registry)))?,
    }
    Ok(0)
}

fn password_on_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(MAX_PASSWORD).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks the person at the terminal; what must not be seen is not echoed.
fn ask(question: &str, echo: bool) -> Result<String, Failure> {
    if !stdin_is_terminal() {
        return Err(Failure::failed("cannot ask for name and password: the input device is not a TTY")
            .hint("give --username and --password-stdin"));
    }
    let stdin = std::io::stdin();
    talk(question);
    let before = tcgetattr(&stdin).map_err(std::io::Error::from)?;
    if !echo {
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO;
        quiet.local_modes |= LocalModes::ECHONL;
        tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(std::io::Error::from)?;
    }
    // Ctrl-C while nothing is echoed must not leave the terminal so.
    let signals = if echo { None } else { Some(Signals::take_endings()?) };
    let line = read_line(signals.as_ref());
    if !echo {
        tcsetattr(&stdin, OptionalActions::Now, &before).map_err(std::io::Error::from)?;
    }
    Ok(line?.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_line(signals: Option<&Signals>) -> Result<String, Failure> {
    use rustix::event::{PollFd, PollFlags, poll};
    let stdin = std::io::stdin();
    if let Some(signals) = signals {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        poll(&mut fds, None).map_err(std::io::Error::from)?;
        if !fds[1].revents().is_empty() {
            return Err(Failure::new(130, "the login was interrupted"));
        }
    }
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    Ok(line)
}
