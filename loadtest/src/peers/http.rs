//! As much of HTTP/1.1 (RFC 9112) as a server of ours on the same machine needs: JSON posted, JSON back, over one
//! connection that stays open.

use super::{ANSWER_BYTES_MAX, ANSWER_LIMIT};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// Longest line of a head, and most of them: Node sends six short ones.
const HEAD_LINE_BYTES_MAX: u64 = 4_096;
const HEAD_LINES_MAX: usize = 64;

/// A connection to a server.
pub(super) struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT).context("connecting to its API")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { address, stream: BufReader::new(stream) })
    }

    /// Posts to `/action`.
    ///
    /// # Errors
    /// With the server's own words where it answers other than 200.
    pub(super) fn post(&mut self, action: &str, body: &Value) -> anyhow::Result<Value> {
        let body = body.to_string();
        let head = format!(
            "POST /{action} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.stream.get_mut().write_all((head + &body).as_bytes()).context("asking its API")?;
        let (status, body) = read_response(&mut self.stream).context("waiting for its API")?;
        let reply: Value = serde_json::from_slice(&body).context("its API")?;
        if status != 200 {
            bail!("it refuses {action}: {}", reply["error"].as_str().unwrap_or("without a reason"));
        }
        Ok(reply)
    }
}

fn read_response(reader: &mut impl BufRead) -> anyhow::Result<(u16, Vec<u8>)> {
    let status_line = read_line(reader)?;
    let status = status_line.split(' ').nth(1).and_then(|it| it.parse().ok()).context("no status")?;
    let mut length = None;
    for _ in 0..HEAD_LINES_MAX {
        let line = read_line(reader)?;
        if line.is_empty() {
            let length = length.context("no content-length")?;
            if length > ANSWER_BYTES_MAX {
                bail!("{length} bytes are too many");
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            return Ok((status, body));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse().context("content-length")?);
        }
    }
    bail!("the head has too many lines")
}

fn read_line(reader: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    reader.by_ref().take(HEAD_LINE_BYTES_MAX).read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").context("a line of the head is cut")?;
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        read_response(&mut text.as_bytes())
    }

    #[test]
    fn reads_what_the_length_says_and_no_more() {
        let mut two = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\n{}HTTP/1.1 400 Bad\r\ncontent-length:0\r\n\r\n"
            .as_bytes();
        assert_eq!(read_response(&mut two).expect("the first"), (200, b"{}".to_vec()));
        assert_eq!(read_response(&mut two).expect("the second"), (400, Vec::new()));
    }

    #[test]
    fn refuses_what_it_cannot_bound() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfour",
            "HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n",
            &format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(5_000)),
            &format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(100)),
        ] {
            assert!(read(text).is_err(), "{text:.60}");
        }
    }
}
