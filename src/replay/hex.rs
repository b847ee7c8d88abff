//! Numbers that scripts write in hexadecimal.

use super::wire_words::hex;
use serde::{Deserialize, Serialize};

/// A number that scripts write in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hex(#[serde(with = "hex")] pub u64);
