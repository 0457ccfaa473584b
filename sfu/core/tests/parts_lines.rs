//! How much is asked of a publisher follows the best line among those who watch, whichever part they live on: bounded
//! queues, an encoder that does as it is told, virtual time.

mod meeting;

use asamblea_seam::Event;
use meeting::{line::Line, span::Span};
use std::time::Duration;

/// Bit/s that the layers take.
const FULL_BPS: [f64; 3] = [120e3, 350e3, 1_200e3];

/// One who shows a camera and one who watches on the first part, one who watches on the other.
struct Scene {
    span: Span,
    here: Line,
    there: Line,
}

impl Scene {
    fn new(here_bps: u64, there_bps: u64) -> Self {
        let mut span = Span::new(11, 2);
        span.parts[0].join(1, 1);
        span.parts[0].join(1, 1);
        span.parts[1].join(1, 1);
        span.parts[0].view(1, &[("v0", Some(0), 720)]);
        span.parts[1].view(0, &[("v0", Some(0), 720)]);
        let mut lines = [Line::new(span.now()), Line::new(span.now())];
        (lines[0].bps, lines[1].bps) = (here_bps, there_bps);
        let [here, there] = lines;
        Self { span, here, there }
    }

    /// What was last asked of the tallest layer, bit/s; 0 for all of it.
    fn cap_bps(&self) -> u32 {
        let told = self.span.parts[0].told.iter().rev();
        let mut caps = told.filter_map(|(_, event)| match event {
            Event::Wanted { ups, .. } => Some((ups[0].layers.clone(), ups[0].bps_max.clone())),
            _ => None,
        });
        caps.next().map_or(0, |(_, caps)| caps[2])
    }

    fn run(&mut self, seconds: u64) {
        for step in 0..seconds * 100 {
            if step % 4 == 0 {
                self.send_frame();
            }
            self.span.pass(Duration::from_millis(10));
            let is_feedback_due = step % 5 == 0;
            self.here.carry(&mut self.span.parts[0], 1, is_feedback_due);
            self.there.carry(&mut self.span.parts[1], 0, is_feedback_due);
        }
    }

    fn send_frame(&mut self) {
        let is_key = !self.span.parts[0].take_plis(0).is_empty();
        let cap = f64::from(self.cap_bps());
        for (layer, full_bps) in FULL_BPS.into_iter().enumerate() {
            let bps = if layer == 2 && cap > 0.0 { full_bps.min(cap) } else { full_bps };
            let bytes = (bps / 25.0 / 8.0) as usize * if is_key { 2 } else { 1 };
            let packets = bytes.div_ceil(1_000).max(1);
            for mut packet in self.span.parts[0].frame(0, layer, is_key, packets as u8) {
                let header = packet.len() - 200 - layer * 300;
                packet.resize(header + (bytes / packets).max(40), 0xaa);
                self.span.hand_in(0, 0, &packet);
            }
        }
    }

    /// The share of the tallest layer among the packets of pictures in the last seconds.
    fn tallest(&self, line: &Line, seconds: u64) -> f64 {
        let from = self.span.now() - Duration::from_secs(seconds);
        let layers: Vec<u8> = line.since(from).filter_map(|out| out.layer).collect();
        layers.iter().filter(|layer| **layer == 2).count() as f64 / layers.len().max(1) as f64
    }
}

#[test]
fn a_layer_is_made_to_fit_the_better_of_two_lines_on_different_parts() {
    for (here, there) in [(720_000, 860_000), (860_000, 720_000)] {
        let mut scene = Scene::new(here, there);
        scene.run(60);
        let cap = scene.cap_bps();
        assert!((620_000..800_000).contains(&cap), "{cap} bit/s for lines of {here} and {there} bit/s");
        let better = if here > there { &scene.here } else { &scene.there };
        assert!(scene.tallest(better, 10) > 0.9, "{}", scene.tallest(better, 10));
    }
}

#[test]
fn one_who_can_carry_all_of_a_layer_on_another_part_gets_all_of_it() {
    let mut scene = Scene::new(720_000, 5_000_000);
    scene.run(60);
    assert_eq!(scene.cap_bps(), 0);
    assert!(scene.tallest(&scene.there, 10) > 0.99);
    assert!(scene.tallest(&scene.here, 10) < 0.05, "too much for this line");
    // Once that one is gone the layer is made to fit the other.
    let (now, key) = (scene.span.now(), scene.span.parts[1].people[0].key);
    scene.span.parts[1].room.view(now, key, &[]);
    scene.run(60);
    let cap = scene.cap_bps();
    assert!((500_000..700_000).contains(&cap), "{cap}");
    assert!(scene.tallest(&scene.here, 10) > 0.9, "{}", scene.tallest(&scene.here, 10));
}
