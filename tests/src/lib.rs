//! What the tests that cross packages share.
