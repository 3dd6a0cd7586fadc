//! A client for the inside of a container that has nothing else: sends its standard input to a socket, says that it is
//! done, and writes what comes back. Built as a program of its own.

use std::{io, net::Shutdown, os::unix::net::UnixStream};

fn main() -> io::Result<()> {
    let path = std::env::args().nth(1).expect("the path of a socket");
    let mut stream = UnixStream::connect(path)?;
    io::copy(&mut io::stdin(), &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::stdout())?;
    Ok(())
}
