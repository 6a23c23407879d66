//! Critics: what tells a joint pair of representations from an independent one.

pub mod head;
pub mod info_nce;
pub mod nce;
