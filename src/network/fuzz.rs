//! What comes from the kernel and from files of the host, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

use super::Resolver;
use super::netlink::message::Message;
use super::netlink::parse::{Attributes, Replies};

/// A netlink answer: no byte is told twice. The bytes as values of attributes: what is written is read back.
pub fn netlink(bytes: &[u8]) {
    let mut told = 0;
    for reply in Replies::new(bytes).take_while(Result::is_ok).flatten() {
        told += reply.body.len();
        for at in [0, 4, 8, 16] {
            let Some(rest) = reply.body.get(at..) else { continue };
            let values = Attributes::new(rest).flatten();
            let mut length = 0;
            for (_, value) in values {
                length += value.len();
                let inner = Attributes::new(value).find(1).map_or(0, <[u8]>::len);
                assert!(inner <= value.len());
            }
            assert!(length <= rest.len(), "more values than bytes");
        }
    }
    assert!(told <= bytes.len(), "more answers than bytes");
    written(bytes);
}

fn written(bytes: &[u8]) {
    let values: Vec<(u16, &[u8])> =
        bytes.chunks(1 + bytes.len() % 23).map(|chunk| (u16::from(chunk[0]), chunk)).take(50).collect();
    let mut message = Message::new(7, 1, b"four");
    for (kind, value) in &values {
        message.attribute(*kind, value);
    }
    message.nested(9, |message| values.iter().for_each(|(kind, value)| message.attribute(*kind, value)));
    let Ok(message) = message.finish(5) else { return };
    let replies: Vec<_> = Replies::new(&message).collect::<Result<_, _>>().expect("our own message is whole");
    let [reply] = &replies[..] else { panic!("one message became {}", replies.len()) };
    assert_eq!((reply.kind, reply.sequence, &reply.body[..4]), (7, 5, &b"four"[..]));
    let mut read: Vec<_> = Attributes::new(&reply.body[4..]).collect::<Result<_, _>>().expect("attributes are whole");
    let (kind, inner) = read.pop().expect("the nested one");
    assert_eq!((kind, read), (9, values.clone()));
    assert_eq!(Attributes::new(inner).collect::<Result<Vec<_>, _>>().expect("inner ones are whole"), values);
}

/// The text of `/etc/resolv.conf`: what we write of it reads the same, and puts no line in that was not asked for.
pub fn resolver(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let resolver = Resolver::parse(&text);
    let clean = |words: &[String]| {
        let fine = |word: &&String| word.bytes().all(|byte| byte.is_ascii_graphic());
        words.iter().filter(fine).cloned().collect::<Vec<_>>()
    };
    let expected = Resolver {
        servers: resolver.servers.clone(),
        search: clean(&resolver.search),
        options: clean(&resolver.options),
    };
    assert_eq!(Resolver::parse(&resolver.text(false)), expected);
    let own = Resolver::parse(&resolver.text(true));
    assert_eq!((own.servers, own.search), (vec![(super::NAME_SERVER, 53).into()], expected.search));
}
