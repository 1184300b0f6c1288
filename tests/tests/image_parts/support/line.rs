//! A line to a registry that counts bytes and can be disturbed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

/// What happens to connections.
#[derive(Clone)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The first connections are answered with this status.
    Answer { connections: usize, status: &'static str },
    /// Each of the first connections breaks after so many bytes from the registry.
    Cut { connections: usize, after: u64 },
    /// Requests are changed on their way: the first text becomes the second, which is as long,
    /// in pieces that contain `only_in`.
    Rewrite { only_in: &'static str, from: &'static str, to: &'static str },
}

/// Listens on `port` and leads to a registry, as long as the test runs.
pub(crate) struct Line {
    pub(crate) port: u16,
    pub(crate) received: Arc<AtomicU64>,
}

impl Line {
    pub(crate) fn to(port: u16, fault: Fault) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("port");
        let line = Self { port: listener.local_addr().expect("address").port(), received: Arc::default() };
        let received = Arc::clone(&line.received);
        let number = AtomicUsize::new(0);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let n = number.fetch_add(1, Ordering::Relaxed);
                let (fault, received) = (fault.clone(), Arc::clone(&received));
                thread::spawn(move || serve(client, port, n, &fault, &received));
            }
        });
        line
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn serve(mut client: TcpStream, port: u16, number: usize, fault: &Fault, received: &Arc<AtomicU64>) {
    let mut limit = u64::MAX;
    match fault {
        Fault::Answer { connections, status } if number < *connections => {
            let mut request = [0; 4096];
            let _ = client.read(&mut request);
            let _ = write!(client, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return;
        }
        Fault::Cut { connections, after } if number < *connections => limit = *after,
        _ => {}
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return;
    };
    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let rewrite = match fault {
        Fault::Rewrite { only_in, from, to } => Some((*only_in, *from, *to)),
        _ => None,
    };
    let up = thread::spawn(move || copy(from_client, to_server, u64::MAX, rewrite, None));
    copy(server, client, limit, None, Some(received));
    let _ = up.join();
}

fn copy(
    mut from: TcpStream,
    mut to: TcpStream,
    mut limit: u64,
    rewrite: Option<(&str, &str, &str)>,
    count: Option<&Arc<AtomicU64>>,
) {
    let mut buffer = vec![0; 1 << 16];
    while limit > 0 {
        let n = match from.read(&mut buffer) {
            Ok(n) if n > 0 => n.min(usize::try_from(limit).unwrap_or(usize::MAX)),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            _ => break,
        };
        limit -= n as u64;
        let mut bytes = buffer[..n].to_vec();
        if let Some((only_in, old, new)) = rewrite
            && position(&bytes, only_in.as_bytes()).is_some()
            && let Some(at) = position(&bytes, old.as_bytes())
        {
            bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        }
        if to.write_all(&bytes).is_err() {
            break;
        }
        if let Some(count) = count {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn position(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}
