//! SSH by `russh`: pure Rust and async, so that waits for a guest, its machine and a deadline
//! are one `select`, and a build for another system needs no C library. `ssh2` was the other
//! choice: it blocks a thread per wait and brings libssh2 and OpenSSL.

use std::{
    borrow::Cow,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::FuturesUnordered};
use russh::{
    Channel, ChannelMsg, Sig, cipher, client, compression, kex,
    keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate},
};
use tokio::{
    net::TcpStream,
    sync::{Mutex as AsyncMutex, OnceCell, broadcast, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Communicator, Connector, ExecOutcome, ExitStatus, GuestCommand, GuestShell, Output, OutputSink,
    SshKey, Transferred, command::Tail, sftp,
};
use crate::{
    driver::{ExitWatch, Vm, VmEvent},
    error::{Error, Result},
    serial::SerialLog,
};

/// A new try begins this often while none has been answered.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// A user-mode network accepts for a guest that is not there; such a try is silent for many
/// seconds even when the guest comes. A guest that is there and busy is silent too. So tries
/// are short at first and grow longer, and are long at once when the guest has refused one.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_secs(20);
const TRIES_AT_ONCE: usize = 3;
/// A guest that refuses costs nothing to ask again, and one that stopped refusing has the SSH server
/// at work for us: more tries at once would only make it slower.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
const SECOND_OPINION: Duration = Duration::from_secs(3);
const TRIES_AT_ONE_WHO_REFUSED: usize = 4;
/// How long a guest may hold on to a connection that is gone, and to its ports.
const PORT_PATIENCE: Duration = Duration::from_secs(30);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(60);
const KILL_LIMIT: Duration = Duration::from_secs(15);

/// Whom to talk to, and as whom.
#[derive(Clone, Debug)]
pub struct SshTarget {
    pub address: SocketAddr,
    pub user: String,
    pub auth: SshAuth,
    /// Shared by all connections of a build to one guest.
    pub host_key: HostKeyPin,
    /// For how long a refused login is tried again: accounts may come later than sshd.
    pub auth_patience: Duration,
    /// See [`SshLogin::brings`].
    pub brings: Vec<u16>,
}

impl SshTarget {
    pub fn new(address: SocketAddr, user: impl Into<String>, auth: SshAuth) -> Self {
        Self {
            address,
            user: user.into(),
            auth,
            host_key: HostKeyPin::default(),
            auth_patience: Duration::from_secs(10),
            brings: Vec::new(),
        }
    }
}

/// How to log in to the guests of a build, wherever they are reached.
#[derive(Clone, Debug)]
pub struct SshLogin {
    pub user: String,
    pub auth: SshAuth,
    /// Where sshd listens in the guest.
    pub guest_port: u16,
    pub host_key: HostKeyPin,
    /// See [`SshTarget::auth_patience`].
    pub auth_patience: Duration,
    /// Ports of 127.0.0.1 here that the guest finds at the same ports of its own 127.0.0.1, for as long
    /// as the connection lives: for guests that reach this system in no other way.
    pub brings: Vec<u16>,
}

impl SshLogin {
    /// By key, on port 22.
    pub fn with_key(user: impl Into<String>, key: SshKey) -> Self {
        Self {
            user: user.into(),
            auth: SshAuth::Key(key),
            guest_port: 22,
            host_key: HostKeyPin::default(),
            auth_patience: Duration::from_secs(10),
            brings: Vec::new(),
        }
    }

    /// Where this machine's guest is reached.
    pub fn target(&self, vm: &dyn Vm) -> Result<SshTarget> {
        let address = vm.info().forwarded(self.guest_port).ok_or_else(|| Error::InvalidSpec {
            machine: vm.info().name.clone(),
            what: format!("no host port leads to port {} of the guest", self.guest_port),
        })?;
        Ok(SshTarget {
            address,
            user: self.user.clone(),
            auth: self.auth.clone(),
            host_key: self.host_key.clone(),
            auth_patience: self.auth_patience,
            brings: self.brings.clone(),
        })
    }
}

#[async_trait]
impl Connector for SshLogin {
    async fn connect(&self, vm: &dyn Vm, limit: Duration) -> Result<Box<dyn Communicator>> {
        Ok(Box::new(Ssh::connect(&self.target(vm)?, vm, limit).await?))
    }
}

#[derive(Clone)]
pub enum SshAuth {
    Key(SshKey),
    Password(String),
}

impl std::fmt::Debug for SshAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SshAuth::Key(key) => key.fmt(f),
            SshAuth::Password(_) => f.write_str("Password(…)"),
        }
    }
}

/// The guest's host key: taken on first contact, demanded from then on.
#[derive(Clone, Debug, Default)]
pub struct HostKeyPin(Arc<Mutex<Option<PublicKey>>>);

impl HostKeyPin {
    /// Forgets the key, for a guest that was given a new one on purpose.
    pub fn forget(&self) {
        if let Ok(mut key) = self.0.lock() {
            *key = None;
        }
    }

    /// `SHA256:…` of the key, once known.
    pub fn fingerprint(&self) -> Option<String> {
        let key = self.0.lock().ok()?;
        key.as_ref().map(|k| k.fingerprint(Default::default()).to_string())
    }

    /// The key a host is known by: the one given as a line of OpenSSH's, else those of the user's
    /// `known_hosts`. A host that is not known is refused: it is about to be told what to do.
    pub(crate) fn of_host(host: &str, port: u16, line: Option<&str>) -> Result<Self> {
        let unknown = |reason: String| Error::Ssh { target: format!("{host}:{port}"), reason };
        let key = match line {
            Some(line) => PublicKey::from_openssh(line)
                .map_err(|e| unknown(format!("host-key is no public key of OpenSSH's: {e}")))?,
            None => {
                let known = russh::keys::known_hosts::known_host_keys(host, port)
                    .map_err(|e| unknown(format!("known_hosts cannot be read: {e}")))?;
                let preferred = known
                    .iter()
                    .find(|(_, key)| key.algorithm() == russh::keys::Algorithm::Ed25519)
                    .or(known.first());
                let (_, key) = preferred.ok_or_else(|| {
                    unknown(format!(
                        "its key is not known; look at it and add it: ssh-keyscan -p {port} {host} >> \
                         ~/.ssh/known_hosts, or name it in the address (?host-key=)"
                    ))
                })?;
                key.clone()
            }
        };
        Ok(Self(Arc::new(Mutex::new(Some(key)))))
    }

    fn accepts(&self, offered: &PublicKey) -> bool {
        let Ok(mut pinned) = self.0.lock() else { return false };
        match pinned.as_ref() {
            Some(pinned) => pinned.key_data() == offered.key_data(),
            None => {
                *pinned = Some(offered.clone());
                true
            }
        }
    }
}

#[derive(Debug)]
struct Handler {
    pin: HostKeyPin,
    refused: Arc<Mutex<Option<String>>>,
    brings: Vec<u16>,
}

impl client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = offered else { return Ok(false) };
        let accepted = self.pin.accepts(key);
        if !accepted && let Ok(mut refused) = self.refused.lock() {
            *refused = Some(key.fingerprint(Default::default()).to_string());
        }
        Ok(accepted)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<client::Msg>,
        _connected_address: &str,
        connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        // The guest asks; only what it was given is reached. Dropped, the handle says no.
        let Some(port) = self.brings.iter().find(|port| u32::from(**port) == connected_port) else {
            return Ok(());
        };
        let at = SocketAddr::from(([127, 0, 0, 1], *port));
        tokio::spawn(async move {
            let Ok(mut here) = TcpStream::connect(at).await else { return };
            reply.accept().await;
            // Either end may close.
            let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut here).await;
        });
        Ok(())
    }
}

/// A logged-in SSH connection.
pub struct Ssh {
    target: SshTarget,
    handle: AsyncMutex<client::Handle<Handler>>,
    sftp: OnceCell<russh_sftp::client::SftpSession>,
    exit: ExitWatch,
    serial: SerialLog,
    /// Becomes true when the machine was reset: the other end of the connection is gone, and
    /// nobody will ever say so.
    reset: watch::Receiver<bool>,
    reset_task: tokio::task::JoinHandle<()>,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.reset_task.abort();
    }
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ssh({}@{})", self.target.user, self.target.address)
    }
}

/// Why one try went no further.
enum Refusal {
    /// Worth trying again until the deadline.
    Again(String),
    /// The guest knows us not.
    Login(String),
    /// It lets us in and takes a port of ours not, perhaps since a connection that broke has it still.
    Port(String),
    /// Another guest answers.
    Stranger(String),
}

impl Ssh {
    /// Tries until the guest lets us in, `limit` is over or the machine has ended.
    pub async fn connect(target: &SshTarget, vm: &dyn Vm, limit: Duration) -> Result<Ssh> {
        Self::connect_while(target, vm.exit_watch(), vm.serial().clone(), &|| vm.events(), limit)
            .await
    }

    /// To a host, which no machine's end ends.
    pub(crate) async fn connect_to_host(target: &SshTarget, limit: Duration) -> Result<Ssh> {
        let silent = SerialLog::continuing(std::path::PathBuf::new());
        let events = || broadcast::channel(1).1;
        Self::connect_while(target, ExitWatch::never(), silent, &events, limit).await
    }

    async fn connect_while(
        target: &SshTarget,
        exit: ExitWatch,
        serial: SerialLog,
        events: &(dyn Fn() -> broadcast::Receiver<VmEvent> + Sync),
        limit: Duration,
    ) -> Result<Ssh> {
        let subject = format!("SSH as {} on {}", target.user, target.address);
        let deadline = Instant::now() + limit;
        let mut last_seen = String::from("no connection was tried");
        let mut first_refusal: Option<Instant> = None;
        let mut port_refused: Option<Instant> = None;
        loop {
            let tried = tokio::select! {
                biased;
                tried = try_once(target, &mut last_seen) => tried,
                reason = exit.wait() => {
                    return Err(Error::Ended { subject, reason, serial_tail: serial.tail() });
                }
                () = sleep_until(deadline) => {
                    return Err(Error::TimedOut {
                        subject,
                        after: limit,
                        last_seen,
                        serial_tail: serial.tail(),
                    });
                }
            };
            let pause = match tried {
                Ok(handle) => {
                    // A try may have begun before the reboot of an installer, and be answered
                    // after it: only resets from the login on end this connection.
                    let events = events();
                    let (sender, reset) = watch::channel(false);
                    return Ok(Ssh {
                        reset,
                        reset_task: tokio::spawn(watch_for_reset(events, sender)),
                        target: target.clone(),
                        handle: AsyncMutex::new(handle),
                        sftp: OnceCell::new(),
                        exit,
                        serial,
                    });
                }
                Err(Refusal::Again(reason)) => {
                    last_seen = reason;
                    TRY_EVERY
                }
                Err(Refusal::Login(reason)) => {
                    let since = *first_refusal.get_or_insert_with(Instant::now);
                    if since.elapsed() >= target.auth_patience {
                        return Err(ssh_error(target, reason));
                    }
                    last_seen = reason;
                    Duration::from_secs(1)
                }
                Err(Refusal::Port(reason)) => {
                    let since = *port_refused.get_or_insert_with(Instant::now);
                    if since.elapsed() >= PORT_PATIENCE {
                        return Err(ssh_error(target, reason));
                    }
                    last_seen = reason;
                    Duration::from_secs(1)
                }
                Err(Refusal::Stranger(reason)) => return Err(ssh_error(target, reason)),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = exit.wait() => {}
            }
        }
    }

    /// Runs a line of a host as it is and hands on all its stdout; the end of stderr and the exit code
    /// come back.
    pub(crate) async fn run_on_host(
        &self,
        line: String,
        stdin: Vec<u8>,
        limit: Duration,
        sink: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(Vec<u8>, Option<u32>)> {
        let mut command = GuestCommand::new(line).stdin(stdin).limit(limit);
        command.shell = GuestShell::Raw;
        let mut stdout = |stream: Output, piece: &[u8]| {
            if stream == Output::Stdout {
                sink(piece);
            }
        };
        let outcome = self.exec(&command, &mut stdout).await?;
        let code = match outcome.status {
            ExitStatus::Code(code) => Some(code),
            ExitStatus::Signal(_) => None,
        };
        Ok((outcome.stderr, code))
    }

    /// Gives a file of a host its name; one of that name that is there is replaced.
    pub(crate) async fn rename_on_host(&self, from: &str, to: &str) -> Result<()> {
        let sftp = self.sftp().await?;
        // Servers of the protocol's third version rename over nothing.
        let _ = sftp.remove_file(to).await;
        sftp.rename(from, to).await.map_err(|e| Error::GuestFile {
            action: "rename",
            path: from.into(),
            reason: e.to_string(),
        })
    }

    /// A connection from the host to an address it reaches.
    pub(crate) async fn dial_from_host(
        &self,
        to: SocketAddr,
    ) -> Result<russh::ChannelStream<client::Msg>> {
        let channel = {
            let handle = self.handle.lock().await;
            let (address, port) = (to.ip().to_string(), u32::from(to.port()));
            handle.channel_open_direct_tcpip(address, port, "127.0.0.1", 0).await
        };
        Ok(channel.map_err(self.lost("connecting to the guest"))?.into_stream())
    }

    /// The whole stdout of a command that must succeed.
    pub async fn output(&self, line: &str) -> Result<String> {
        let outcome = self.exec(&GuestCommand::new(line), &mut super::quiet()).await?;
        if outcome.succeeded() {
            return Ok(outcome.stdout_text());
        }
        Err(ssh_error(
            &self.target,
            format!("`{line}` ended with {}: {}", outcome.status, outcome.stderr_text().trim_end()),
        ))
    }

    fn lost(&self, during: &str) -> impl FnOnce(russh::Error) -> Error + use<> {
        let (target, during) = (self.target(), during.to_owned());
        move |e| Error::ConnectionLost { target, during, reason: e.to_string() }
    }

    async fn open_channel(&self, during: &str) -> Result<Channel<client::Msg>> {
        let handle = self.handle.lock().await;
        handle.channel_open_session().await.map_err(self.lost(during))
    }

    /// The SFTP session, opened at first use.
    async fn sftp(&self) -> Result<&russh_sftp::client::SftpSession> {
        self.sftp
            .get_or_try_init(|| async {
                let channel = self.open_channel("opening SFTP").await?;
                channel.request_subsystem(true, "sftp").await.map_err(self.lost("opening SFTP"))?;
                let config = sftp::config();
                russh_sftp::client::SftpSession::new_with_config(channel.into_stream(), config)
                    .await
                    .map_err(|e| ssh_error(&self.target, format!("the guest offers no SFTP: {e}")))
            })
            .await
    }

    async fn guarded<T>(&self, subject: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut reset = self.reset.clone();
        let work = async {
            tokio::select! {
                biased;
                result = work => result,
                _ = reset.wait_for(|reset| *reset) => Err(Error::ConnectionLost {
                    target: self.target(),
                    during: subject.into(),
                    reason: "the machine was reset".into(),
                }),
            }
        };
        match self.exit.or_ended(subject, &self.serial, work).await {
            // A connection that breaks because the machine ended is told as that.
            Err(error @ (Error::ConnectionLost { .. } | Error::GuestFile { .. })) => {
                let grace = Duration::from_millis(500);
                match timeout(grace, self.exit.wait()).await {
                    Ok(reason) => Err(Error::Ended {
                        subject: subject.into(),
                        reason,
                        serial_tail: self.serial.tail(),
                    }),
                    Err(_) => Err(error),
                }
            }
            other => other,
        }
    }

    async fn run(&self, command: &GuestCommand, output: OutputSink<'_>) -> Result<ExecOutcome> {
        let begun = Instant::now();
        let deadline = begun + command.limit;
        let during = "running a command";
        let (line, input) = command.wire();
        let channel = self.open_channel(during).await?;
        channel.exec(true, line).await.map_err(self.lost(during))?;
        let (mut reader, writer) = channel.split();
        // Input and output flow at once: either may fill up while the other waits.
        let feed = async {
            if !input.is_empty() {
                // A command that does not read its input ends with it unread.
                let _ = writer.data(&input[..]).await;
            }
            let _ = writer.eof().await;
            std::future::pending::<()>().await
        };
        tokio::pin!(feed);
        let mut streams = Streams::new(command.shell);
        let mut status = None;
        loop {
            let message = tokio::select! {
                message = reader.wait() => message,
                () = &mut feed => continue,
                () = sleep_until(deadline) => {
                    // Children first: once their parent is gone they are nobody's.
                    if let Some(pid) = &streams.pid {
                        self.kill_family(pid).await;
                    }
                    let _ = writer.signal(Sig::KILL).await;
                    let _ = writer.close().await;
                    return Err(Error::TimedOut {
                        subject: "a command in the guest".into(),
                        after: command.limit,
                        last_seen: streams.last_line(),
                        serial_tail: self.serial.tail(),
                    });
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => streams.stdout(&data, output),
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => streams.stderr(&data, output),
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    status = Some(ExitStatus::Code(exit_status));
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    status = Some(ExitStatus::Signal(signal_text(&signal_name)));
                }
                Some(ChannelMsg::Failure) => {
                    return Err(ssh_error(
                        &self.target,
                        "the guest refused to run a command".into(),
                    ));
                }
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
        }
        match status {
            Some(status) => Ok(streams.finish(status, begun.elapsed())),
            None => Err(Error::ConnectionLost {
                target: self.target(),
                during: during.into(),
                reason: "it closed before the command's exit status came".into(),
            }),
        }
    }

    /// Kills a command with all it started; best effort, for one that ran out of time.
    async fn kill_family(&self, pid: &str) {
        // Each process is stopped before its children are listed, so that none slips away; what
        // left the family is still in the group the SSH server made.
        let line = format!(
            "t() {{ kill -STOP $1 2>/dev/null; \
             for c in $(sed -n 's/^\\([0-9]*\\) (.*) [A-Za-z] '$1' .*/\\1/p' /proc/[0-9]*/stat \
             2>/dev/null); do t $c; done; kill -KILL $1 2>/dev/null; }}; t {pid}; \
             kill -KILL -{pid} 2>/dev/null"
        );
        let kill = async {
            let mut channel = self.open_channel("killing a command").await.ok()?;
            channel.exec(false, line).await.ok()?;
            while channel.wait().await.is_some() {}
            Some(())
        };
        let _ = timeout(KILL_LIMIT, kill).await;
    }
}

async fn watch_for_reset(mut events: broadcast::Receiver<VmEvent>, reset: watch::Sender<bool>) {
    loop {
        match events.recv().await {
            Ok(VmEvent::Reset { .. }) => {
                reset.send_replace(true);
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => {
                // The machine's end is told by its own watch; this one stays as it is.
                std::future::pending::<()>().await;
            }
        }
    }
}

fn ssh_error(target: &SshTarget, reason: String) -> Error {
    Error::Ssh { target: format!("{}@{}", target.user, target.address), reason }
}

fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        other => format!("{other:?}"),
    }
}

/// What a command says, on its way to the listener.
struct Streams {
    /// Before the first line of a POSIX command has come, it is collected here.
    head: Option<Vec<u8>>,
    pid: Option<String>,
    out: Tail,
    err: Tail,
}

impl Streams {
    fn new(shell: GuestShell) -> Self {
        let head = (shell == GuestShell::Posix).then(Vec::new);
        Self { head, pid: None, out: Tail::default(), err: Tail::default() }
    }

    fn stdout(&mut self, piece: &[u8], output: OutputSink<'_>) {
        let piece = match &mut self.head {
            None => Cow::Borrowed(piece),
            Some(head) => {
                head.extend_from_slice(piece);
                let Some(end) = head.iter().position(|b| *b == b'\n') else { return };
                let rest = head.split_off(end + 1);
                let pid = String::from_utf8_lossy(&head[..end]).trim().to_owned();
                self.pid = pid.bytes().all(|b| b.is_ascii_digit()).then_some(pid);
                self.head = None;
                Cow::Owned(rest)
            }
        };
        if !piece.is_empty() {
            self.out.push(&piece);
            output(Output::Stdout, &piece);
        }
    }

    fn stderr(&mut self, piece: &[u8], output: OutputSink<'_>) {
        self.err.push(piece);
        output(Output::Stderr, piece);
    }

    fn last_line(&self) -> String {
        let last = self.err.last_line();
        if last.is_empty() { self.out.last_line() } else { last }
    }

    fn finish(self, status: ExitStatus, took: Duration) -> ExecOutcome {
        ExecOutcome { status, stdout: self.out.finish(), stderr: self.err.finish(), took }
    }
}

fn client_config() -> Arc<client::Config> {
    const KEX: &[kex::Name] = &[
        // Cheapest first: the guest may be emulated, and its key lives for one build.
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::ECDH_SHA2_NISTP256,
        kex::DH_GEX_SHA256,
        kex::DH_G14_SHA256,
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    ];
    const CIPHERS: &[cipher::Name] =
        &[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_128_CTR];
    let preferred = russh::Preferred {
        kex: Cow::Borrowed(KEX),
        cipher: Cow::Borrowed(CIPHERS),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Default::default()
    };
    Arc::new(client::Config {
        preferred,
        window_size: 8 << 20,
        keepalive_interval: Some(Duration::from_secs(10)),
        keepalive_max: 6,
        nodelay: true,
        ..Default::default()
    })
}

async fn try_once(
    target: &SshTarget,
    last_seen: &mut String,
) -> std::result::Result<client::Handle<Handler>, Refusal> {
    let stream = greeted_stream(target.address, last_seen).await;
    let refused = Arc::new(Mutex::new(None));
    let handler = Handler {
        pin: target.host_key.clone(),
        refused: refused.clone(),
        brings: target.brings.clone(),
    };
    let handshake = async {
        let mut handle = client::connect_stream(client_config(), stream, handler)
            .await
            .map_err(|e| Refusal::Again(format!("the key exchange failed: {e}")))?;
        let user = target.user.as_str();
        let result = match &target.auth {
            SshAuth::Key(key) => {
                let hash = handle.best_supported_rsa_hash().await.ok().flatten().flatten();
                let key = PrivateKeyWithHashAlg::new(key.private.clone(), hash);
                handle.authenticate_publickey(user, key).await
            }
            SshAuth::Password(password) => handle.authenticate_password(user, password).await,
        };
        match result {
            Ok(client::AuthResult::Success) => {
                for port in &target.brings {
                    let asked = handle.tcpip_forward("127.0.0.1", u32::from(*port)).await;
                    asked.map_err(|e| {
                        Refusal::Port(format!(
                            "the guest's SSH server does not take port {port} for the files of the \
                             build ({e}): AllowTcpForwarding must not be `no` in its sshd_config, and \
                             nothing else may listen there"
                        ))
                    })?;
                }
                Ok(handle)
            }
            Ok(client::AuthResult::Failure { remaining_methods, .. }) => {
                Err(Refusal::Login(format!(
                    "the guest refuses the login of {user}; it would take {remaining_methods:?}"
                )))
            }
            Err(e) => Err(Refusal::Again(format!("the login broke off: {e}"))),
        }
    };
    let result = match timeout(HANDSHAKE_LIMIT, handshake).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::Again("it greets, but does not finish the handshake".into())),
    };
    // The library reports a refused key as a failed exchange.
    let stranger = refused.lock().ok().and_then(|mut r| r.take());
    match (result, stranger) {
        (Err(_), Some(offered)) => Err(Refusal::Stranger(format!(
            "the guest's host key changed from {} to {offered}",
            target.host_key.fingerprint().unwrap_or_default()
        ))),
        (result, _) => result,
    }
}

/// A connection over which the first bytes of a greeting have come. Runs until there is one.
async fn greeted_stream(address: SocketAddr, last_seen: &mut String) -> TcpStream {
    let mut tries = FuturesUnordered::new();
    let begun = Instant::now();
    let mut guest_refused = false;
    let mut next_try = begun;
    loop {
        let at_once = if guest_refused { TRIES_AT_ONE_WHO_REFUSED } else { TRIES_AT_ONCE };
        tokio::select! {
            biased;
            Some(result) = tries.next() => match result {
                Ok(stream) => return stream,
                Err(Silence { reason, silent }) => {
                    *last_seen = reason;
                    guest_refused = !silent;
                    if guest_refused {
                        next_try = Instant::now() + AFTER_REFUSAL;
                    }
                }
            },
            () = sleep_until(next_try), if tries.len() < at_once => {
                let (patience, pause) = if guest_refused {
                    (MOST_PATIENCE, SECOND_OPINION)
                } else {
                    let patience = (begun.elapsed() / 10).clamp(FIRST_PATIENCE, MOST_PATIENCE);
                    (patience, TRY_EVERY.max(patience / 4).min(FIRST_PATIENCE))
                };
                tries.push(await_greeting(address, patience));
                next_try = Instant::now() + pause;
            }
        }
    }
}

/// A try without a greeting.
struct Silence {
    reason: String,
    /// Whether nothing came at all, not even a refusal.
    silent: bool,
}

async fn await_greeting(
    address: SocketAddr,
    patience: Duration,
) -> std::result::Result<TcpStream, Silence> {
    let refused = |reason: String| Silence { reason, silent: false };
    let greeting = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| refused(format!("the port does not accept: {e}")))?;
        let mut first = [0; 4];
        match stream.peek(&mut first).await {
            Ok(0) => Err(refused("nothing listens in the guest yet".into())),
            Ok(_) => Ok(stream),
            Err(e) => Err(refused(format!("the guest closed before greeting: {e}"))),
        }
    };
    match timeout(patience, greeting).await {
        Ok(result) => result,
        Err(_) => {
            Err(Silence { reason: "the guest does not answer (no greeting)".into(), silent: true })
        }
    }
}

#[async_trait]
impl Communicator for Ssh {
    fn target(&self) -> String {
        format!("{}@{}", self.target.user, self.target.address)
    }

    async fn exec(&self, command: &GuestCommand, output: OutputSink<'_>) -> Result<ExecOutcome> {
        self.guarded("a command in the guest", self.run(command, output)).await
    }

    async fn upload(&self, local: &Path, remote: &str, mode: Option<u32>) -> Result<Transferred> {
        let work = async { sftp::upload(self.sftp().await?, local, remote, mode).await };
        self.guarded(&format!("the upload of {remote}"), work).await
    }

    async fn upload_bytes(&self, bytes: &[u8], remote: &str, mode: u32) -> Result<()> {
        let work = async { sftp::upload_bytes(self.sftp().await?, bytes, remote, mode).await };
        self.guarded(&format!("the upload of {remote}"), work).await
    }

    async fn download(&self, remote: &str, local: &Path) -> Result<Transferred> {
        let work = async { sftp::download(self.sftp().await?, remote, local).await };
        self.guarded(&format!("the download of {remote}"), work).await
    }

    fn is_open(&self) -> bool {
        // A lock that is taken belongs to somebody who uses the connection.
        !*self.reset.borrow() && self.handle.try_lock().map_or(true, |handle| !handle.is_closed())
    }

    async fn close(&self) {
        let handle = self.handle.lock().await;
        let _ = handle.disconnect(russh::Disconnect::ByApplication, "done", "en").await;
    }
}
