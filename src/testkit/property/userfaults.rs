//! Memory whose faults a handler answers: faults that wait, write protection, tracked writes.

use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    mm::{
        FillMode, MmapArgs, PageCategories, ProtectMode, RegisterMode, ScanArgs, ScanFlags,
        UffdFeatures, Userfault,
    },
    testkit::{
        Kit, patience,
        trial::{Run, Trial, at},
        verdict::Seen,
    },
};
use std::{ops::Range, sync::Arc};

/// Pages that wait for their handler, that are write-protected, and whose writes are tracked.
const MISSING: Range<u64> = 200..204;
const PROTECTED: Range<u64> = 300..304;
const TRACKED: Range<u64> = 400..404;

pub(super) fn userfaults(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    waiting(t, cx)?;
    protected(t, cx);
    tracked(t, cx);
    Ok(())
}

/// Maps pages, and registers them.
fn register(
    t: &Trial,
    cx: &mut CallCx<'_>,
    pages: &Range<u64>,
    (features, mode): (UffdFeatures, RegisterMode),
) -> Userfault {
    let what = format!("mmap {pages:?}, UFFDIO_REGISTER for {mode:?}");
    t.act(cx, what, |mm, cx| {
        let len = (pages.end - pages.start) * PAGE_SIZE;
        let addr = at(pages.start);
        mm.mmap(cx, &MmapArgs::anonymous(len).fixed(addr))
            .expect("room");
        let uffd = mm.userfaultfd();
        uffd.api(Userfault::VERSION, features).expect("known");
        uffd.register(cx, addr, len, mode).expect("mapped");
        uffd
    })
}
fn end(t: &Trial, cx: &mut CallCx<'_>, pages: &Range<u64>, uffd: Userfault) {
    t.act(
        cx,
        format!("close the userfaultfd, munmap {pages:?}"),
        |mm, cx| {
            uffd.close(cx);
            let len = (pages.end - pages.start) * PAGE_SIZE;
            mm.munmap(cx, at(pages.start), len).expect("mapped");
        },
    );
}

/// A read of a page that is not there waits, and holds up neither a window nor the answer.
fn waiting(t: &Arc<Trial>, cx: &mut CallCx<'_>) -> Run {
    let uffd = register(
        t,
        cx,
        &MISSING,
        (UffdFeatures::empty(), RegisterMode::MISSING),
    );
    for page in MISSING {
        let reader = t.timed_thread(format!("a read of page {page}"), move |t, cx| {
            t.read(cx, at(page))
        });
        if !patience::until(t.deadline, || uffd.has_message()) {
            let _came = reader.join()?;
            t.see(Seen::Allowed(format!(
                "a read of page {page}, which its handler has not filled"
            )));
            continue;
        }
        t.elsewhere(
            "a window while a fault waits for an answer",
            move |t, cx| {
                t.drop_pages(cx, page, page + 1);
            },
        )?;
        t.act(cx, format!("UFFDIO_COPY to page {page}"), |_, cx| {
            let _message = uffd.read();
            let bytes = [9; 4096];
            uffd.copy(cx, at(page), &bytes, FillMode::empty())
                .expect("it is missing");
        });
        if let Ok(byte) = reader.join()? {
            t.compare(cx, at(page), Ok(byte));
        }
        t.agree(cx, page);
        t.deliver(cx, page, 10);
    }
    t.audit();
    end(t, cx, &MISSING, uffd);
    Ok(())
}

fn protect(t: &Trial, cx: &mut CallCx<'_>, uffd: &Userfault, mode: ProtectMode) {
    let what = format!("UFFDIO_WRITEPROTECT of {PROTECTED:?}, {mode:?}");
    t.act(cx, what, |_, cx| {
        let len = (PROTECTED.end - PROTECTED.start) * PAGE_SIZE;
        uffd.write_protect(cx, at(PROTECTED.start), len, mode)
            .expect("registered");
    });
}

/// No write reaches a page that is protected, present or not; each does afterwards.
fn protected(t: &Trial, cx: &mut CallCx<'_>) {
    let modes = (UffdFeatures::WP_UNPOPULATED, RegisterMode::WP);
    let uffd = register(t, cx, &PROTECTED, modes);
    let looks_to_write = t.device.declares().always_writes;
    for round in 0..3_u8 {
        // The last page stays absent, so its protection is a marker.
        let present = PROTECTED.start..PROTECTED.end - 1;
        present.for_each(|page| t.deliver(cx, page, 20 + round));
        protect(t, cx, &uffd, ProtectMode::WP);
        t.audit();
        for page in PROTECTED {
            let wanted = t.mm.load(cx, at(page)).unwrap_or_default();
            if !looks_to_write {
                t.agree(cx, page);
            }
            let came = t.write(cx, at(page), 99);
            t.refused("a write to a page that userfaultfd protects", came);
            t.undisturbed(cx, at(page), wanted);
        }
        while uffd.read().is_some() {}
        protect(t, cx, &uffd, ProtectMode::empty());
        PROTECTED.for_each(|page| t.deliver(cx, page, 30 + round));
        let last = PROTECTED.end - 1;
        t.drop_pages(cx, last, last + 1);
    }
    end(t, cx, &PROTECTED, uffd);
}

/// A scan reports each page that the device has written since the last one.
fn tracked(t: &Trial, cx: &mut CallCx<'_>) {
    let modes = (UffdFeatures::WP_ASYNC, RegisterMode::WP);
    let uffd = register(t, cx, &TRACKED, modes);
    let args = ScanArgs {
        start: at(TRACKED.start),
        end: at(TRACKED.end),
        flags: ScanFlags::WP_MATCHING,
        regions: 64,
        pages: 0,
        inverted: PageCategories::empty(),
        mask: PageCategories::WRITTEN,
        any_of: PageCategories::empty(),
        reported: PageCategories::WRITTEN,
    };
    for round in 0..3_u8 {
        TRACKED.for_each(|page| t.deliver(cx, page, 40 + round));
        let scan = t.act(cx, "PAGEMAP_SCAN, protecting", |mm, cx| {
            mm.pagemap_scan(cx, &args).expect("good arguments")
        });
        for page in TRACKED {
            let all = &mut scan.regions.iter();
            if !all.any(|region| (region.start..region.end).contains(&at(page)))
                && t.device.declares().coherent
            {
                t.see(Seen::Allowed(format!(
                    "a write to page {page} that a scan of written pages does not report"
                )));
            }
        }
        t.audit();
    }
    end(t, cx, &TRACKED, uffd);
}
