//! How a bot comes to its signaling socket: over plain HTTP, by a token.

use super::{BotConfig, PATIENCE};
use crate::turn::RelayCredentials;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

pub(super) type Socket = WebSocketStream<TcpStream>;

/// Opens the signaling socket.
///
/// # Errors
/// What the network or the bridge said instead.
pub async fn connect(port: u16) -> anyhow::Result<Socket> {
    connect_to((Ipv4Addr::LOCALHOST, port).into()).await
}

pub(super) async fn connect_to(bridge: SocketAddr) -> anyhow::Result<Socket> {
    let stream = TcpStream::connect(bridge).await?;
    Ok(client_async(format!("ws://localhost:{}/api/socket", bridge.port()), stream).await?.0)
}

/// Asks for a join token.
///
/// # Errors
/// What the network or the bridge said instead.
pub async fn token(port: u16, meeting: &str) -> anyhow::Result<String> {
    token_of((Ipv4Addr::LOCALHOST, port).into(), meeting).await
}

pub(super) async fn token_of(bridge: SocketAddr, meeting: &str) -> anyhow::Result<String> {
    let body = ask_token(bridge, meeting).await?;
    Ok(body["token"].as_str().unwrap_or_default().to_owned())
}

/// Asks for credentials of the relay, which come with a token.
///
/// # Errors
/// What the network or the bridge said instead.
pub async fn relay_credentials(bridge: SocketAddr, meeting: &str) -> anyhow::Result<RelayCredentials> {
    let body = ask_token(bridge, meeting).await?;
    let text = |key: &str| body["relay"][key].as_str().map(str::to_owned);
    match (text("username"), text("credential")) {
        (Some(username), Some(password)) => Ok(RelayCredentials { username, password }),
        _ => anyhow::bail!("the bridge has no relay"),
    }
}

async fn ask_token(bridge: SocketAddr, meeting: &str) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect(bridge).await?;
    let port = bridge.port();
    let request = format!(
        "POST /api/meetings/{meeting}/token HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut response)).await??;
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("no HTTP answer"))?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "no token: {head}");
    Ok(serde_json::from_str(body)?)
}

pub(super) async fn say(socket: &mut Socket, message: &Value) -> anyhow::Result<()> {
    Ok(socket.send(Message::text(message.to_string())).await?)
}

/// What comes next on the socket; nothing ever where there is none.
pub(super) async fn next(
    socket: &mut Option<Socket>,
) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

/// The socket that is being opened, once it is.
pub(super) async fn opened(opening: &mut Option<JoinHandle<Socket>>) -> Socket {
    match opening {
        Some(opening) => opening.await.expect("opening a socket does not panic"),
        None => std::future::pending().await,
    }
}

/// Opens a socket and says `hello` with a resume token.
pub(super) async fn greet(config: &BotConfig, resume: &str) -> anyhow::Result<Socket> {
    let token = token_of(config.bridge(), &config.meeting).await?;
    let mut socket = connect_to(config.bridge()).await?;
    let hello = json!({
        "type": "hello", "versions": [1], "token": token, "name": config.name, "resume": resume,
    });
    say(&mut socket, &hello).await?;
    Ok(socket)
}
