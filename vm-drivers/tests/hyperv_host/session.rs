//! SSH: commands, the SFTP subsystem, and tunnels.

use std::{collections::HashMap, io::Read, io::Seek, sync::Arc, time::Duration};

use russh::{
    Channel, ChannelId, ChannelMsg,
    keys::{PrivateKey, PublicKey},
    server::{self, Auth, ChannelOpenHandle, Msg, Session},
};

use super::{Reply, World, sftp::Sftp};

pub async fn listen(
    listener: tokio::net::TcpListener,
    host_key: String,
    public: String,
    world: Arc<World>,
) {
    let config = Arc::new(server::Config {
        keys: vec![PrivateKey::from_openssh(&host_key).unwrap()],
        auth_rejection_time: Duration::from_millis(10),
        window_size: 8 << 20,
        nodelay: true,
        ..Default::default()
    });
    let key = PublicKey::from_openssh(&public).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let handler = Client { world: world.clone(), key: key.clone(), channels: HashMap::new() };
        let config = config.clone();
        tokio::spawn(async move {
            if let Ok(session) = server::run_stream(config, stream, handler).await {
                let _ = session.await;
            }
        });
    }
}

struct Client {
    world: Arc<World>,
    key: PublicKey,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl server::Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = user == "ci" && key.public_key.key_data() == self.key.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(channel) = self.channels.remove(&id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let line = String::from_utf8_lossy(data).into_owned();
        tokio::spawn(run(self.world.clone(), channel, line));
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.remove(&id) {
            Some(channel) if name == "sftp" => {
                session.channel_success(id)?;
                let sftp = Sftp::new(self.world.clone());
                tokio::spawn(async move {
                    russh_sftp::server::run(channel.into_stream(), sftp).await;
                });
                Ok(())
            }
            _ => session.channel_failure(id),
        }
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let found = {
            let machines = self.world.machines.lock().unwrap();
            let machine = machines.iter().find(|machine| machine.address == host);
            machine.and_then(|machine| machine.ssh).filter(|_| port == 22)
        };
        // Dropped, the handle says no.
        let Some(at) = found else { return Ok(()) };
        let Ok(mut guest) = tokio::net::TcpStream::connect(at).await else { return Ok(()) };
        reply.accept().await;
        tokio::spawn(async move {
            let mut stream = channel.into_stream();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut guest).await;
        });
        Ok(())
    }
}

/// A command to its end.
async fn run(world: Arc<World>, mut channel: Channel<Msg>, line: String) {
    let mut stdin = Vec::new();
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) => stdin.extend_from_slice(&data),
            Some(ChannelMsg::Eof) => break,
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    }
    let judge = world.clone();
    let reply = tokio::task::spawn_blocking(move || judge.run(&line, &stdin)).await;
    let code = match reply {
        Ok(Reply::Answer(line)) => {
            let bytes = bytes::Bytes::from(line);
            u32::from(channel.data_bytes(bytes).await.is_err())
        }
        Ok(Reply::Relay(relay)) => copy_serial(&world, &channel, &relay).await,
        Ok(Reply::Unknown) => {
            let text = "the term is not recognized as the name of a cmdlet\r\n";
            let _ = channel.extended_data(1, text.as_bytes()).await;
            1
        }
        Err(error) => {
            let _ = channel.extended_data(1, format!("{error}\r\n").as_bytes()).await;
            1
        }
    };
    let _ = channel.exit_status(code).await;
    let _ = channel.eof().await;
    let _ = channel.close().await;
}

/// The named pipe of a machine: there while it runs.
async fn copy_serial(
    world: &World,
    channel: &Channel<Msg>,
    relay: &hyperv_rs::script::relay::Relay,
) -> u32 {
    let find = || {
        let machines = world.machines.lock().unwrap();
        machines.iter().find(|machine| machine.pipe == relay.pipe).cloned()
    };
    let patience = Duration::from_millis(relay.patience_ms.into());
    let begun = std::time::Instant::now();
    let machine = loop {
        match find() {
            Some(machine) => break machine,
            None if begun.elapsed() > patience => return hyperv_rs::script::relay::NO_PIPE,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let mut at = 0;
    loop {
        let ended = machine.exit.ended().is_some();
        let mut piece = Vec::new();
        if let Ok(mut file) = std::fs::File::open(&machine.serial) {
            let _ = file.seek(std::io::SeekFrom::Start(at));
            let _ = file.read_to_end(&mut piece);
        }
        at += piece.len() as u64;
        if !piece.is_empty() && channel.data(&piece[..]).await.is_err() {
            return 0;
        }
        if piece.is_empty() && ended {
            return 0;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
