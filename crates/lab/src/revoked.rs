//! The CRL distribution point of the lab's CA: serves the certificate revocation list over HTTP (RFC 5280 §5).

use crate::dns::AbortOnDrop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves the DER-encoded list in response to every request.
pub(crate) fn serve(listener: TcpListener, list: Vec<u8>) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, list.clone()));
        }
    }))
}

async fn answer(mut stream: TcpStream, list: Vec<u8>) -> std::io::Result<()> {
    let mut head = [0; 1024];
    let _ = stream.read(&mut head).await?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/pkix-crl\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        list.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&list).await?;
    stream.shutdown().await
}
