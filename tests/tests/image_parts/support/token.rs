//! A token server, as registries have beside them: it gives whoever may a signed token for what was asked for.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::run;

const ISSUER: &str = "sealift-tests";
/// `me` and `secret`, as HTTP has them.
const PASSWORD: &str = "Basic bWU6c2VjcmV0";
/// What everybody may pull.
const PUBLIC: &str = "repository:public/";

/// Listens on `port` as long as the test runs. `me` with `secret` gets all that is asked for, anybody else what
/// is public, and a wrong password nothing.
pub(crate) struct TokenServer {
    port: u16,
    folder: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    /// Starts one that keeps its key in this folder.
    pub(crate) fn start(folder: &Path) -> Self {
        run(Command::new("openssl")
            .current_dir(folder)
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes"])
            .args(["-subj", "/CN=tokens", "-days", "2", "-keyout", "token.key", "-out", "token.crt"]));
        run(Command::new("openssl")
            .current_dir(folder)
            .args(["x509", "-in", "token.crt", "-outform", "der"])
            .args(["-out", "token.der"]));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("port");
        let port = listener.local_addr().expect("address").port();
        let server = Self { port, folder: folder.to_path_buf(), asked: Arc::default() };
        let (folder, asked) = (server.folder.clone(), Arc::clone(&server.asked));
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let (folder, asked) = (folder.clone(), Arc::clone(&asked));
                thread::spawn(move || serve(client, &folder, &asked));
            }
        });
        server
    }

    /// The registry's settings that send its users here.
    pub(crate) fn config(&self) -> String {
        format!(
            "auth: {{token: {{realm: \"http://127.0.0.1:{}/token\", service: test, issuer: {ISSUER}, rootcertbundle: {}}}}}\n",
            self.port,
            self.folder.join("token.crt").display()
        )
    }

    /// The scopes that were asked for so far, each time with the user's name or `-`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }
}

fn serve(mut client: TcpStream, folder: &Path, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(client.try_clone().expect("a socket")).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let mut password = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            password = Some(value.to_string());
        }
    }
    let query = request.split(' ').nth(1).and_then(|target| target.split_once('?')).map_or("", |(_, query)| query);
    let scopes: Vec<String> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="))
        .flat_map(|value| decode(value).split(' ').map(String::from).collect::<Vec<_>>())
        .collect();
    let user = if password.is_some() { "me" } else { "-" };
    asked.lock().expect("lock").push(format!("{user} {}", scopes.join(" ")));
    let (status, body) = match password.as_deref() {
        None | Some(PASSWORD) => {
            let may = |scope: &&String| password.is_some() || scope.starts_with(PUBLIC);
            let granted = scopes.iter().filter(may).map(|scope| {
                let mut parts = scope.splitn(3, ':');
                let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let actions: Vec<&str> = parts.next().unwrap_or_default().split(',').collect();
                let actions: Vec<&str> =
                    actions.into_iter().filter(|action| password.is_some() || *action == "pull").collect();
                json!({"type": kind, "name": name, "actions": actions})
            });
            ("200 OK", json!({"token": token(folder, &granted.collect::<Vec<_>>()), "expires_in": 300}))
        }
        Some(_) => ("401 Unauthorized", json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})),
    };
    let body = body.to_string();
    let head = format!("content-type: application/json\r\ncontent-length: {}\r\nconnection: close", body.len());
    let _ = write!(client, "HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}");
}

/// A JSON Web Token for this access, signed by the key whose certificate the registry believes.
fn token(folder: &Path, access: &[serde_json::Value]) -> String {
    let certificate = base64(&fs::read(folder.join("token.der")).expect("certificate"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let claims = json!({"iss": ISSUER, "sub": "", "aud": "test", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": "1", "access": access});
    let url = |bytes: &[u8]| base64(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_");
    let signed = format!("{}.{}", url(header.to_string().as_bytes()), url(claims.to_string().as_bytes()));
    let mut sign = Command::new("openssl");
    sign.args(["dgst", "-sha256", "-sign"]).arg(folder.join("token.key"));
    let mut child = sign.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("openssl");
    child.stdin.take().expect("a pipe").write_all(signed.as_bytes()).expect("written");
    let signature = child.wait_with_output().expect("signed").stdout;
    format!("{signed}.{}", url(&signature))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// A value of a query, as it was before it was put into the URL.
fn decode(value: &str) -> String {
    let mut parts = value.split('%');
    let mut text = parts.next().unwrap_or_default().replace('+', " ");
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).expect("two digits");
        text.push(char::from(code));
        text.push_str(&part[2..].replace('+', " "));
    }
    text
}
