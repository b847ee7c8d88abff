//! Seeds of the target `ops` from the shipped recordings, in pieces of 64 operations: `seeds FOLDER`.

use emmu::replay::shipped;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args().nth(1).ok_or("a folder")?);
    fs::create_dir_all(&folder)?;
    for script in shipped()?.iter().step_by(4) {
        for (nth, piece) in emmu_fuzz::encode(script).chunks(64 * 8).enumerate() {
            let name = format!("{}-{nth}", script.name.replace('/', "-"));
            fs::write(folder.join(name), piece)?;
        }
    }
    Ok(())
}
