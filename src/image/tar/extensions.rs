//! What PAX headers say about the entry that follows.

use super::pax;

/// What extended headers said about the next entry.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
    pub(super) sparse_major: Option<u64>,
    pub(super) sparse_map: Vec<u64>,
    pub(super) sparse: bool,
}

impl Extensions {
    /// Takes in the records of an extended header; `None` when one is malformed.
    pub(super) fn read(&mut self, data: &[u8]) -> Option<()> {
        for (key, value) in pax::records(data)? {
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(pax::decimal(value)?),
                b"uid" => self.uid = Some(pax::decimal(value)?),
                b"gid" => self.gid = Some(pax::decimal(value)?),
                b"mtime" => self.mtime = Some(pax::time(value)?),
                b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                    self.sparse_size = Some(pax::decimal(value)?);
                    self.sparse = true;
                }
                b"GNU.sparse.major" => self.sparse_major = Some(pax::decimal(value)?),
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    self.sparse_map.push(pax::decimal(value)?);
                    self.sparse = true;
                }
                b"GNU.sparse.map" => {
                    self.sparse = true;
                    self.sparse_map.clear();
                    for number in value.split(|b| *b == b',').filter(|text| !text.is_empty()) {
                        self.sparse_map.push(pax::decimal(number)?);
                    }
                }
                _ => {
                    if let Some(name) = pax::attribute(key) {
                        self.xattrs.push((name, value.to_vec()));
                    }
                }
            }
        }
        Some(())
    }
}
