//! Getting data sets from where they are published: resumable downloads, checksums, unpacking.
//!
//! What is downloaded grows in `ARCHIVE.part` and takes its name when its checksum is right; what is unpacked grows in a
//! folder beside and takes its name when it is whole. So a data set is there or it is not, whatever interrupts.

mod download;
mod lock;
mod unpack;

use std::path::{Path, PathBuf};

use limbeck::inventory;
use limbeck::prelude::*;

pub use download::{Download, Progress, verify};
pub use unpack::unpack;

/// Where a data set is published. A crate registers its own with `inventory::submit!`.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The data set's kind.
    pub kind: &'static str,
    /// The page that describes it.
    pub page: &'static str,
    /// Under what terms, in a few words.
    pub terms: &'static str,
    /// The archive: `.tar.gz` or `.zip`.
    pub url: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its MD5, in hexadecimal digits.
    pub md5: &'static str,
    /// Who published that MD5.
    pub md5_from: &'static str,
    /// The folder in the archive; everything is in it.
    pub folder: &'static str,
    /// Files and folders in that folder without which it is not the data set.
    pub content: &'static [&'static str],
}

inventory::collect!(Source);

impl Source {
    /// Every source that is linked in, by kind.
    pub fn all() -> Vec<&'static Source> {
        let mut sources: Vec<&Source> = inventory::iter::<Source>.into_iter().collect();
        sources.sort_by_key(|source| source.kind);
        sources
    }

    /// The archive's file name.
    pub fn archive(&self) -> &'static str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }

    /// The unpacked folder in `parent`, if it is there.
    ///
    /// # Errors
    /// If it is there and lacks something.
    pub fn unpacked(&self, parent: &Path) -> Result<Option<PathBuf>> {
        let folder = parent.join(self.folder);
        if !folder.exists() {
            return Ok(None);
        }
        let lacking: Vec<&str> = self.content.iter().copied().filter(|name| !folder.join(name).exists()).collect();
        match lacking.as_slice() {
            [] => Ok(Some(folder)),
            _ => Err(Error::data(folder, format!("lacks {}; delete it and fetch again", lacking.join(", ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_unpacked_folder_is_whole_or_what_it_lacks_is_named() {
        let source = Source {
            kind: "set",
            page: "",
            terms: "",
            url: "http://nowhere/set.tar.gz",
            bytes: 1,
            md5: "",
            md5_from: "",
            folder: "set",
            content: &["train.bin", "val/images", "names.txt"],
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(source.unpacked(dir.path()).unwrap(), None);
        let folder = dir.path().join("set");
        fs::create_dir_all(folder.join("val/images")).unwrap();
        let message = source.unpacked(dir.path()).unwrap_err().to_string();
        let lacking = format!("{}: lacks train.bin, names.txt; delete it and fetch again", folder.display());
        assert_eq!(message, lacking);
        for name in ["train.bin", "names.txt"] {
            fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(source.unpacked(dir.path()).unwrap(), Some(folder));
    }
}
