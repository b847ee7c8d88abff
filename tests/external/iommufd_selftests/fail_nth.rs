//! The cases of `iommufd_fail_nth`: each allocation of the machine's memory fails once. Where the
//! kernel's program relies on sanitizers, these check that nothing is pinned or mapped after it.

use super::*;

/// Runs `calls` with each of its allocations failing in turn. They end with the first error.
fn fail_nth(domains: usize, calls: impl Fn(&mut Fixture) -> Result<(), Errno>) {
    let mut failed = 0;
    for nth in 1.. {
        let mut f = Fixture::new(domains);
        f.w.machine.mem().inject().arm(nth);
        let done = calls(&mut f);
        let asked = f.w.machine.mem().inject().count();
        f.w.machine.mem().inject().disarm();
        f.end();
        if asked < nth {
            assert_eq!(done, Ok(()), "no allocation failed");
            break;
        }
        // An allocation that can be done without may fail unseen.
        if let Err(why) = done {
            assert_eq!(why, Errno::ENOMEM);
            failed += 1;
        }
    }
    assert!(failed > 0, "none was seen to fail");
}

#[test]
fn basic() {
    fail_nth(NO_DOMAIN, |f| {
        let allowed = (16 * 1024, BYTES + 16 * 1024 * 600 - 1);
        f.ioas.allow(&[allowed]).map_err(|why| why.errno())?;
        let iova = f.map(None, at(0), BYTES)?;
        let ioas = Arc::clone(&f.ioas);
        let cx = &mut f.w.thread.cx();
        let copied = ioas.copy(cx, &ioas, (iova, 160), None, Access::Write);
        copied.map_err(|why| why.errno())?;
        f.unmap(iova, BYTES)?;
        assert_eq!(f.unmap(iova, BYTES), Err(Errno::ENOENT));
        // No page was needed yet: one is, for an access.
        f.map(Some(START), at(0), BYTES)?;
        let access = f.ioas.access(|_, _| ());
        let written = access.write(&mut f.w.thread.cx(), START, &[1]);
        written.map_err(|why| why.errno())
    });
}

fn attach(f: &mut Fixture) -> Result<(), Errno> {
    let domain = f.attach()?;
    f.domains.push(domain);
    Ok(())
}

fn detach(f: &mut Fixture) {
    let domain = f.domains.pop().unwrap();
    f.ioas.detach(&domain);
    assert_eq!(domain.entries(), 0);
}

#[test]
fn map_domain() {
    fail_nth(NO_DOMAIN, |f| {
        attach(f)?;
        f.map(None, at(0), BYTES)?;
        detach(f);
        attach(f)
    });
}

#[test]
fn map_two_domains() {
    fail_nth(1, |f| {
        attach(f)?;
        f.map(None, at(0), BYTES)?;
        detach(f);
        detach(f);
        attach(f)?;
        attach(f)
    });
}

#[test]
fn access_rw() {
    fail_nth(NO_DOMAIN, |f| {
        let iova = f.map(None, at(0), BYTES)?;
        let access = f.ioas.access(|_, _| ());
        let cx = &mut f.w.thread.cx();
        let mut bytes = vec![3; usize::try_from(4 * PAGE).unwrap()];
        let small = &mut bytes[..64];
        access.read(cx, iova, small).map_err(|why| why.errno())?;
        access.write(cx, iova, small).map_err(|why| why.errno())?;
        let written = access.write(cx, iova, &bytes);
        written.map_err(|why| why.errno())
    });
}

/// Pins all pages, and gives them up.
fn pin(f: &mut Fixture) -> Result<(), Errno> {
    let iova = f.map(None, at(0), BYTES)?;
    let access = f.ioas.access(|_, _| ());
    let cx = &mut f.w.thread.cx();
    let pages = access.pin_pages(cx, (iova, BYTES), Access::Write);
    assert_eq!(pages.map_err(|why| why.errno())?.pages().count(), 16);
    Ok(())
}

#[test]
fn access_pin() {
    fail_nth(NO_DOMAIN, pin);
}

#[test]
fn access_pin_domain() {
    fail_nth(1, |f| {
        pin(f)?;
        detach(f);
        Ok(())
    });
}
