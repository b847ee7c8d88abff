//! Memory of one process in three others, which are this program, started again. A page goes only
//! after all processes that have it have answered. One of them is killed while it owes an answer,
//! and one never answers.
//!
//! ```text
//! cargo run --features remote --example xpmem_remote
//! ```

use emmu::addr::{Vpn, VpnRange};
use emmu::extmmu::xpmem::remote::{RemoteConfig, RemotePartition};
use emmu::extmmu::xpmem::{Manners, Owner, OwnerConfig, PartitionId, SegId};
use emmu::mm::{Advice, MmapArgs};
use emmu::{Contents, Machine, MachineConfig, Mm, PAGE_SIZE, notifier::Access, oracle::Oracle};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio, id};
use std::{env, os::unix::net::UnixListener, sync::Arc, thread, time::Instant};

const BASE: u64 = 0x10_0000_0000;
type Any<T> = Result<T, Box<dyn std::error::Error>>;

/// Runs the other process: for each line of input, prints the bytes of the memory and stores the
/// line.
fn remote(path: &str, segment: u128, manners: &str) -> Any<()> {
    let partition = RemotePartition::connect(path)?;
    if manners == "hangs" {
        partition.set_manners(Manners::Hangs);
    }
    let memory = partition.attach(SegId::from_number(segment), 0, 16)?;
    for line in std::io::stdin().lines() {
        let mut seen = [0; 8];
        memory.read(0, &mut seen)?;
        memory.write(0, line?.as_bytes())?;
        println!("{:?}", String::from_utf8_lossy(&seen));
    }
    Ok(())
}

/// Sends a word to a remote process, and prints its answer.
fn tell(child: &mut Child, word: &str) -> Any<()> {
    writeln!(child.stdin.as_mut().ok_or("no input")?, "{word}")?;
    let mut seen = String::new();
    let output = child.stdout.as_mut().ok_or("no output")?;
    BufReader::with_capacity(1, output).read_line(&mut seen)?;
    let seen = seen.trim();
    println!("process {} reads {seen}, writes {word:?}", child.id());
    Ok(())
}

/// Starts three remote processes, and serves their connections.
fn start(owner: &Arc<Owner>, segment: &str) -> Any<Vec<Child>> {
    let path = env::temp_dir().join(format!("xpmem-{}", id()));
    let listener = UnixListener::bind(&path)?;
    let mut children = Vec::new();
    for (n, manners) in (1..).zip(["dutiful", "dutiful", "hangs"]) {
        let mut command = Command::new(env::current_exe()?);
        command.arg(&path).args([segment, manners]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        children.push(command.spawn()?);
        let stream = listener.accept()?.0;
        owner.serve(stream, PartitionId(n), RemoteConfig::default())?;
    }
    std::fs::remove_file(&path)?;
    Ok(children)
}

fn main() -> Any<()> {
    if let [_, path, segment, manners] = &env::args().collect::<Vec<_>>()[..] {
        return remote(path, segment.parse()?, manners);
    }
    // A machine whose frames other processes can map, and an address space that exports memory.
    let mut config = MachineConfig::default();
    config.memory.contents = Contents::Shared;
    let machine = Machine::try_new(config)?;
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(16 * PAGE_SIZE).fixed(BASE))?;
    let config = OwnerConfig {
        deadline: std::time::Duration::from_millis(300),
        ..OwnerConfig::default()
    };
    let (owner, registration) = Owner::attach(&mut cx, &mm, config);
    let oracle = Oracle::new(&machine);
    oracle.watch(&mm, owner.clone());
    let first = Vpn::containing(BASE);
    let range = VpnRange::new(first, first.plus(16)).ok_or("no pages")?;
    let segment = owner.make(range, Access::Write).number().to_string();

    let mut children = start(&owner, &segment)?;

    // The first two processes use one page, in memory that all three have mapped.
    tell(&mut children[0], "from one")?;
    tell(&mut children[1], "from two")?;
    let since = Instant::now();
    mm.madvise(&mut cx, BASE, PAGE_SIZE, Advice::DontNeed)?;
    let took = since.elapsed();
    println!("both answered after {took:.0?}: the page is gone\n");

    // Once more. The second process is killed when the recall comes; the third does not answer.
    for (child, word) in children.iter_mut().zip(["first", "second", "third"]) {
        tell(child, word)?;
    }
    let since = Instant::now();
    thread::scope(|s| {
        s.spawn(|| children[1].kill());
        mm.madvise(&mut cx, BASE, PAGE_SIZE, Advice::DontNeed)
    })?;
    println!("one was killed, one hung: {:.0?}", since.elapsed());
    owner.failures().iter().for_each(|f| println!("{f}"));
    tell(&mut children[0], "goes on")?;
    // The third process notices at its next access: its mapped memory holds no page.
    writeln!(children[2].stdin.as_mut().ok_or("no input")?, "late")?;
    let (id, status) = (children[2].id(), children[2].wait()?);
    println!("process {id} has given up: {status}\n\n{:#?}", owner.bill());

    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    oracle.audit_empty(&mut cx, 0);
    oracle.assert_silent();
    println!("the oracle is silent");
    drop(children[0].stdin.take());
    children[0].wait()?;
    Ok(children[1].wait().map(drop)?)
}
