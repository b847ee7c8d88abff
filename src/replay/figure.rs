//! The costs of a replayed program, drawn over the time of the recording.
//!
//! Each quantity has a panel, and all panels have one time axis, from the beginning of the
//! recording. Each device has a line. Colours (of Okabe and Ito, distinct for colour-blind readers)
//! and dashes tell lines apart, so that coinciding lines stay visible, also in black print. Thin
//! grey lines are forks.

use super::{
    mmu_kind::MmuKind,
    timeline::{Followed, Moment},
};
use crate::extmmu::Bill;
use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::collections::BTreeMap;
use thiserror::Error;

/// The reason for a missing figure.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FigureError {
    /// No device was attached, or no device had an event.
    #[error("no external MMU was attached: there is no bill to draw (--mmu)")]
    Nothing,
    /// The drawing library failed.
    #[error("the figure cannot be drawn: {0}")]
    Drawing(String),
}

const WIDTH: u32 = 860;
const HEAD: u32 = 64;
const PANEL: u32 = 128;
const FOOT: u32 = 30;
/// Most points of a line; more are invisible.
const POINTS: f64 = 800.0;
const FONT: &str = "Helvetica, Arial, sans-serif";
const GREY: RGBColor = RGBColor(140, 140, 140);

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Area<'b> = DrawingArea<SVGBackend<'b>, Shift>;
type Line = Vec<(f64, Bill)>;

/// The quantity of a panel.
struct Quantity {
    name: &'static str,
    of: fn(&Bill) -> f64,
}

#[allow(clippy::cast_precision_loss, reason = "it is drawn")]
const PANELS: [Quantity; 5] = [
    Quantity {
        name: "windows",
        of: |b| b.windows as f64,
    },
    Quantity {
        name: "pages dropped",
        of: |b| b.dropped as f64,
    },
    Quantity {
        name: "refaults",
        of: |b| b.refaults as f64,
    },
    Quantity {
        name: "retries",
        of: |b| b.retries as f64,
    },
    Quantity {
        name: "in windows, ms",
        of: |b| b.in_windows.as_secs_f64() * 1e3,
    },
];

/// Colour, width, and dash and gap of a device's line; wider ones are drawn first.
fn style(kind: MmuKind) -> (RGBColor, u32, Option<(u32, u32)>) {
    match kind {
        MmuKind::Kvm => (RGBColor(0, 114, 178), 4, None),
        MmuKind::Gru => (RGBColor(230, 159, 0), 2, None),
        MmuKind::Xpmem => (RGBColor(0, 0, 0), 2, Some((5, 7))),
        MmuKind::Gpu => (RGBColor(0, 158, 115), 3, None),
        MmuKind::RegCache => (RGBColor(213, 94, 0), 2, Some((2, 4))),
        MmuKind::Odp => (RGBColor(86, 180, 233), 2, Some((9, 4))),
        MmuKind::Sva => (RGBColor(204, 121, 167), 2, Some((4, 2))),
    }
}

fn label(kind: MmuKind) -> &'static str {
    match kind {
        MmuKind::Kvm => "KVM",
        MmuKind::Gru => "GRU",
        MmuKind::Xpmem => "XPmem",
        MmuKind::Gpu => "GPU",
        MmuKind::RegCache => "registrations",
        MmuKind::Odp => "ODP",
        MmuKind::Sva => "SVA",
    }
}

/// Returns the figure of one recording as SVG, with `title` above.
///
/// # Errors
///
/// [`FigureError`] without devices, or if the drawing library fails.
pub fn svg(title: &str, moments: &[Moment]) -> Result<String, FigureError> {
    let data = Data::new(moments)?;
    let panels = u32::try_from(PANELS.len()).expect("few");
    let size = (WIDTH, HEAD + PANEL * panels + FOOT);
    let mut out = String::new();
    let root = SVGBackend::with_string(&mut out, size).into_drawing_area();
    let drawn = draw(&root, title, &data);
    drawn.map_err(|e| FigureError::Drawing(e.to_string()))?;
    drop(root);
    Ok(out)
}

/// Lines by device, over seconds since the first event.
struct Data {
    lines: BTreeMap<MmuKind, Line>,
    forks: Vec<f64>,
    end: f64,
}

#[allow(clippy::cast_precision_loss, reason = "it is drawn")]
impl Data {
    fn new(moments: &[Moment]) -> Result<Self, FigureError> {
        let start = moments.iter().map(|m| m.who.at).min();
        let last = moments.iter().map(|m| m.who.at).max();
        let (start, last) = start.zip(last).ok_or(FigureError::Nothing)?;
        let seconds = |at: u64| at.saturating_sub(start) as f64 / 1e9;
        let end = seconds(last).max(1e-6);
        let mut lines: BTreeMap<MmuKind, Line> = BTreeMap::new();
        let mut now = 0.0_f64;
        for moment in moments {
            // Events are out of order by less than the figure can show.
            now = now.max(seconds(moment.who.at));
            for standing in &moment.standings {
                let line = lines.entry(standing.kind).or_default();
                line.push((now, standing.bill));
            }
        }
        if lines.is_empty() {
            return Err(FigureError::Nothing);
        }
        lines.values_mut().for_each(|line| thin(line, end));
        let forks = moments.iter().filter(|m| is_fork(m));
        Ok(Self {
            lines,
            forks: forks.map(|m| seconds(m.who.at)).collect(),
            end,
        })
    }
    fn most(&self, quantity: &Quantity) -> f64 {
        let lasts = self.lines.values().filter_map(|line| line.last());
        lasts
            .map(|(_, bill)| (quantity.of)(bill))
            .fold(0.0, f64::max)
    }
}

fn is_fork(moment: &Moment) -> bool {
    let Followed::Call(text) = &moment.what else {
        return false;
    };
    let forks = text.starts_with("fork") || text.starts_with("clone");
    forks && !text.contains("CLONE_VM") && moment.who.is_first
}

/// Keeps the last value of each stretch of time, and the very first and last.
fn thin(line: &mut Line, end: f64) {
    #[allow(clippy::cast_possible_truncation, reason = "at most POINTS")]
    let stretch = |at: f64| (at / end * POINTS) as i64;
    let mut kept: Line = Vec::new();
    for point in line.drain(..) {
        let is_first = kept.len() < 2;
        match kept.last_mut() {
            Some(last) if !is_first && stretch(last.0) == stretch(point.0) => *last = point,
            _ => kept.push(point),
        }
    }
    if let Some(&(at, bill)) = kept.last()
        && at < end
    {
        kept.push((end, bill));
    }
    *line = kept;
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &Area<'_>, title: &str, data: &Data) -> Drawn {
    root.fill(&WHITE)?;
    let (head, rest) = root.split_vertically(HEAD);
    header(&head, title, data)?;
    let heights: Vec<u32> = (1..u32::try_from(PANELS.len())?)
        .map(|n| n * PANEL)
        .collect();
    let areas = rest.split_by_breakpoints([0_u32; 0], heights);
    for (nth, (quantity, area)) in PANELS.iter().zip(&areas).enumerate() {
        panel(area, quantity, data, nth + 1 == PANELS.len())?;
    }
    root.present()?;
    Ok(())
}

/// Title and legend.
fn header(area: &Area<'_>, title: &str, data: &Data) -> Drawn {
    let bold = (FONT, 16).into_font().style(FontStyle::Bold).color(&BLACK);
    let title = format!("{title}: what each external MMU had paid by then");
    area.draw(&Text::new(title, (84, 12), bold))?;
    let plain = (FONT, 13).into_font().color(&BLACK);
    let mut x = 84;
    for kind in data.lines.keys() {
        stroke(area, vec![(x, 47), (x + 34, 47)], *kind)?;
        area.draw(&Text::new(label(*kind), (x + 40, 40), plain.clone()))?;
        x += 120;
    }
    if !data.forks.is_empty() {
        area.draw(&PathElement::new(vec![(x + 12, 38), (x + 12, 56)], GREY))?;
        area.draw(&Text::new("fork", (x + 22, 40), plain))?;
    }
    Ok(())
}

fn stroke(area: &Area<'_>, points: Vec<(i32, i32)>, kind: MmuKind) -> Drawn {
    let (colour, width, dash) = style(kind);
    let style = colour.stroke_width(width);
    match dash {
        None => area.draw(&PathElement::new(points, style))?,
        Some((dash, gap)) => {
            let line = plotters::element::DashedPathElement::new(points, dash, gap, style);
            area.draw(&line)?;
        }
    }
    Ok(())
}

fn panel(area: &Area<'_>, quantity: &Quantity, data: &Data, is_last: bool) -> Drawn {
    let most = data.most(quantity);
    let top = if most > 0.0 { most * 1.08 } else { 1.0 };
    let below = if is_last { 44 } else { 8 };
    let mut chart = ChartBuilder::on(area)
        .margin_top(6)
        .margin_right(24)
        .margin_left(16)
        .set_label_area_size(LabelAreaPosition::Left, 68)
        .set_label_area_size(LabelAreaPosition::Bottom, below)
        .build_cartesian_2d(0.0..data.end, 0.0..top)?;
    let small = (FONT, 12).into_font().color(&BLACK);
    let times = |at: &f64| if is_last { short(*at) } else { String::new() };
    let counts = |count: &f64| {
        if most > 0.0 || *count == 0.0 {
            short(*count)
        } else {
            String::new()
        }
    };
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .y_labels(if most > 0.0 { 4 } else { 2 })
        .x_label_formatter(&times)
        .y_label_formatter(&counts)
        .label_style(small.clone())
        .y_desc(quantity.name)
        .axis_desc_style(small);
    if is_last {
        mesh.x_desc("time of the recording, s");
    }
    mesh.draw()?;
    lines(&mut chart, quantity, data, top)
}

fn lines(chart: &mut Chart<'_, '_>, quantity: &Quantity, data: &Data, top: f64) -> Drawn {
    let forks = data.forks.iter();
    chart.draw_series(forks.map(|at| PathElement::new(vec![(*at, 0.0), (*at, top)], GREY)))?;
    let mut kinds: Vec<_> = data.lines.iter().collect();
    kinds.sort_by_key(|(kind, _)| std::cmp::Reverse(style(**kind).1));
    for (kind, line) in kinds {
        let points = line.iter().map(|(at, bill)| (*at, (quantity.of)(bill)));
        let (colour, width, dash) = style(*kind);
        let style = colour.stroke_width(width);
        match dash {
            None => chart.draw_series(LineSeries::new(points, style))?,
            Some((dash, gap)) => {
                chart.draw_series(DashedLineSeries::new(points, dash, gap, style))?
            }
        };
    }
    if data.most(quantity) == 0.0 {
        let middle = Pos::new(HPos::Center, VPos::Center);
        let grey = (FONT, 12).into_font().color(&GREY).pos(middle);
        chart.draw_series([Text::new("none", (data.end / 2.0, top / 2.0), grey)])?;
    }
    Ok(())
}

/// Formats a number for an axis: 1500 as 1.5k.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}
