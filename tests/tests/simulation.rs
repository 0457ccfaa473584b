//! The media plane in virtual time: the bridge's heart against `str0m` clients over simulated links.

use asamblea_seam::{Event, UpKind};
use asamblea_tests::peer::Received;
use asamblea_tests::world::{Client, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use str0m_netem::{Bitrate, DataSize, NetemConfig, Probability, RandomLoss};

const CONNECT: Duration = Duration::from_secs(5);

fn clean() -> NetemConfig {
    NetemConfig::new().latency(Duration::from_millis(20))
}

fn lossy() -> NetemConfig {
    clean().jitter(Duration::from_millis(8)).loss(RandomLoss::new(Probability::new(0.05)))
}

fn everyone_is_connected(world: &World) -> bool {
    world.clients.iter().all(|client| client.is_connected)
}

/// Everyone speaks and shows their camera for so long: a 20 ms audio packet, 25 frames a second in three layers,
/// key frames when they are asked for and at the start.
fn everyone_talks(world: &mut World, duration: Duration) {
    everyone_talks_on(world, duration, &[(0, 1), (1, 2), (2, 4)]);
}

/// With these layers of the camera, each with its packets a frame.
fn everyone_talks_on(world: &mut World, duration: Duration, layers: &[(usize, u8)]) {
    let ticks = duration.as_millis() / 20;
    let mut key_frames_seen: Vec<usize> = world.clients.iter().map(|_| 0).collect();
    for tick in 0..ticks {
        let now = world.now;
        for (client, seen) in world.clients.iter_mut().zip(&mut key_frames_seen) {
            client.peer.send_audio(now, 30);
            if tick % 2 == 0 {
                let wanted: BTreeSet<usize> =
                    client.key_frames_wanted[*seen..].iter().map(|(_, _, layer)| *layer).collect();
                *seen = client.key_frames_wanted.len();
                for &(layer, packets) in layers {
                    let is_key = tick == 0 || wanted.contains(&layer);
                    client.peer.send_video(now, UpKind::Camera, layer, is_key, packets, 1_000);
                }
            }
        }
        world.run(Duration::from_millis(20));
    }
}

fn heard(client: &Client) -> BTreeSet<u32> {
    client.received.iter().filter(|(_, it)| it.stamp.kind == 0).map(|(_, it)| it.stamp.sender).collect()
}

fn seen(client: &Client) -> BTreeSet<u32> {
    client.received.iter().filter(|(_, it)| it.stamp.kind == 1).map(|(_, it)| it.stamp.sender).collect()
}

/// What must hold of every stream a client received, whatever the network did: one packet a sequence number, and in
/// order of sequence numbers whole frames of one sender's one layer with continuous picture ids, the first of every
/// sender and layer a key frame.
fn assert_streams_are_decodable(client: &Client) {
    let mut streams: BTreeMap<u32, BTreeMap<u64, &Received>> = BTreeMap::new();
    for (_, received) in client.received.iter().filter(|(_, it)| it.stamp.kind != 0) {
        let stream = streams.entry(received.ssrc).or_default();
        if let Some(earlier) = stream.insert(received.sequence, received) {
            assert_eq!(earlier.stamp, received.stamp, "one sequence number, two packets");
        }
    }
    for packets in streams.values() {
        let mut before: Option<(u64, &Received)> = None;
        for (sequence, packet) in packets {
            let (picture, tl0) = packet.picture.expect("a VP8 packet");
            if let Some((last_sequence, last)) = before {
                let (last_picture, last_tl0) = last.picture.expect("a VP8 packet");
                let is_same_source =
                    (last.stamp.sender, last.stamp.layer) == (packet.stamp.sender, packet.stamp.layer);
                if is_same_source {
                    let frames = packet.stamp.frame - last.stamp.frame;
                    assert_eq!(u32::from(picture.wrapping_sub(last_picture) & 0x7fff), frames, "picture ids");
                    assert_eq!(u32::from(tl0.wrapping_sub(last_tl0)), frames & 0xff, "TL0PICIDX");
                    let timestamps = packet.timestamp.wrapping_sub(last.timestamp);
                    assert_eq!(timestamps, frames * 3_000, "timestamps");
                } else if *sequence == last_sequence + 1 {
                    assert!(
                        packet.stamp.is_key && packet.stamp.packet == 0,
                        "a switch starts with a key frame"
                    );
                    assert_eq!(picture.wrapping_sub(last_picture) & 0x7fff, 1, "picture ids over a switch");
                    assert!(packet.timestamp.wrapping_sub(last.timestamp) < 0x8000_0000, "time goes on");
                }
            }
            before = Some((*sequence, packet));
        }
    }
}

#[test]
fn two_people_hear_and_see_each_other() {
    let mut world = World::new(1);
    for _ in 0..2 {
        let index = world.join(clean(), 2, 2);
        world.publish(index, &[UpKind::Microphone, UpKind::Camera]);
    }
    assert!(world.run_until(CONNECT, everyone_is_connected), "{:?}", world.counters());
    world.view(0, &[(1, 720)]);
    world.view(1, &[(0, 180)]);
    everyone_talks(&mut world, Duration::from_secs(3));
    for (me, other) in [(0, 1), (1, 0)] {
        let client = &world.clients[me];
        assert_eq!(heard(client), BTreeSet::from([other]));
        assert_eq!(seen(client), BTreeSet::from([other]));
        assert_streams_are_decodable(client);
    }
    let last_layer = |me: usize| world.clients[me].received.iter().rev().find(|(_, it)| it.stamp.kind == 1);
    assert_eq!(last_layer(0).map(|(_, it)| it.stamp.layer), Some(2), "720 px want the tallest layer");
    assert_eq!(last_layer(1).map(|(_, it)| it.stamp.layer), Some(0), "180 px want the smallest layer");
}

#[test]
fn lost_pictures_are_sent_again() {
    let mut world = World::new(2);
    let speaker = world.join(clean(), 1, 1);
    let viewer = world.join(lossy(), 1, 1);
    world.publish(speaker, &[UpKind::Microphone, UpKind::Camera]);
    assert!(world.run_until(CONNECT, everyone_is_connected));
    world.view(viewer, &[(speaker, 720)]);
    everyone_talks(&mut world, Duration::from_secs(6));
    world.run(Duration::from_secs(1));
    let client = &world.clients[viewer];
    assert_streams_are_decodable(client);
    let sequences: BTreeSet<u64> =
        client.received.iter().filter(|(_, it)| it.stamp.kind == 1).map(|(_, it)| it.sequence).collect();
    let (first, last) = (*sequences.first().expect("video came"), *sequences.last().expect("video came"));
    let missing = (last - first + 1) as usize - sequences.len();
    assert!(sequences.len() > 300, "only {} packets came", sequences.len());
    assert!(missing * 100 < sequences.len(), "{missing} of {} stayed lost at 5 % loss", sequences.len());
}

#[test]
fn a_view_that_changes_stops_the_old_picture_and_starts_the_new_at_a_key_frame() {
    let mut world = World::new(3);
    for _ in 0..3 {
        let index = world.join(clean(), 2, 1);
        world.publish(index, &[UpKind::Microphone, UpKind::Camera]);
    }
    assert!(world.run_until(CONNECT, everyone_is_connected));
    world.view(0, &[(1, 720)]);
    everyone_talks(&mut world, Duration::from_secs(2));
    world.view(0, &[(2, 720)]);
    let switched_at = world.now;
    everyone_talks(&mut world, Duration::from_secs(2));
    let client = &world.clients[0];
    assert_streams_are_decodable(client);
    let late = switched_at + Duration::from_millis(60); // what was on the link when the view changed
    let old =
        client.received.iter().filter(|(at, it)| *at > late && it.stamp.kind == 1 && it.stamp.sender == 1);
    assert_eq!(old.count(), 0, "the old picture goes on");
    let new = client.received.iter().filter(|(_, it)| it.stamp.kind == 1 && it.stamp.sender == 2).count();
    assert!(new > 100, "only {new} packets of the new picture");
}

#[test]
fn a_broken_path_is_opened_again_and_media_goes_on() {
    let mut world = World::new(4);
    for _ in 0..2 {
        let index = world.join(clean(), 1, 1);
        world.publish(index, &[UpKind::Microphone, UpKind::Camera]);
    }
    assert!(world.run_until(CONNECT, everyone_is_connected));
    world.view(0, &[(1, 720)]);
    everyone_talks(&mut world, Duration::from_secs(1));
    world.fail_paths(0);
    everyone_talks(&mut world, Duration::from_secs(8));
    let a_second_ago = world.now - Duration::from_secs(1);
    let client = &world.clients[0];
    let late = |kind: u8| {
        client.received.iter().filter(|(at, it)| *at > a_second_ago && it.stamp.kind == kind).count()
    };
    assert!(late(0) > 40, "{} packets of sound in the last second", late(0));
    assert!(late(1) > 50, "{} packets of pictures in the last second", late(1));
    assert_streams_are_decodable(client);
}

#[test]
fn many_seeds_of_lossy_meetings_stay_decodable() {
    for seed in 100..116 {
        let mut world = World::new(seed);
        let people = 3 + (seed as usize % 3);
        for _ in 0..people {
            let index = world.join(lossy(), 3, 4);
            world.publish(index, &[UpKind::Microphone, UpKind::Camera]);
        }
        assert!(world.run_until(Duration::from_secs(20), everyone_is_connected), "seed {seed}");
        for me in 0..people {
            let wishes: Vec<(usize, u16)> = (0..people)
                .filter(|other| *other != me)
                .map(|other| (other, [180, 360, 720][(me + other) % 3]))
                .collect();
            world.view(me, &wishes);
        }
        everyone_talks(&mut world, Duration::from_secs(2));
        world.leave(people - 1);
        for client in &world.clients[..people - 1] {
            assert_streams_are_decodable(client);
            assert_eq!(seen(client).len(), people - 1, "seed {seed}: everyone is seen");
        }
    }
}

/// A viewer whose line drops to 100 kbit/s and recovers, with a speaker whose camera sends three layers.
#[test]
fn a_line_that_drops_keeps_its_sound_and_gets_its_picture_back() {
    let narrow = || clean().link(Bitrate::kbps(100), DataSize::bytes(100_000 / 8 * 3 / 10));
    let mut world = World::new(11);
    let speaker = world.join(clean(), 1, 1);
    let viewer = world.join(clean(), 1, 1);
    world.publish(speaker, &[UpKind::Microphone, UpKind::Camera]);
    assert!(world.run_until(CONNECT, everyone_is_connected));
    world.view(viewer, &[(speaker, 720)]);
    everyone_talks(&mut world, Duration::from_secs(10));
    let layer = |world: &World| {
        let last = world.clients[viewer].received.iter().rev().find(|(_, it)| it.stamp.kind == 1);
        last.map(|(at, it)| (world.now - *at, it.stamp.layer))
    };
    assert_eq!(layer(&world).map(|(_, layer)| layer), Some(2), "the tallest before");

    let dropped_at = world.now;
    world.change_down_link(viewer, narrow());
    everyone_talks(&mut world, Duration::from_secs(10));
    let paused = world.pauses(viewer).into_iter().find(|(at, paused)| *paused && *at > dropped_at);
    let after = paused.map(|(at, _)| at - dropped_at);
    assert!(after.is_some_and(|after| after <= Duration::from_secs(3)), "held back after {after:?}");
    let sound: Vec<Instant> = world.clients[viewer]
        .received
        .iter()
        .filter(|(at, it)| it.stamp.kind == 0 && *at > dropped_at + Duration::from_secs(3))
        .map(|(at, _)| *at)
        .collect();
    let gap = sound.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(gap.is_some_and(|gap| gap < Duration::from_millis(200)), "sound stops for {gap:?}");
    assert!(sound.len() > 300, "{} of 350 packets of sound", sound.len());

    let recovered_at = world.now;
    world.change_down_link(viewer, clean());
    everyone_talks(&mut world, Duration::from_secs(20));
    let back = world.clients[viewer]
        .received
        .iter()
        .find(|(at, it)| it.stamp.kind == 1 && it.stamp.layer == 2 && *at > recovered_at)
        .map(|(at, _)| *at - recovered_at);
    assert!(back.is_some_and(|back| back <= Duration::from_secs(10)), "back after {back:?}");
    let changes = world.pauses(viewer).len();
    assert!(changes <= 4, "no flutter: {changes} changes");
    assert_streams_are_decodable(&world.clients[viewer]);
}

/// A line that carries the picture, but not a key frame at once: sound does not stand behind it in a queue.
#[test]
fn a_key_frame_does_not_hold_up_the_sound() {
    let link = clean().link(Bitrate::kbps(700), DataSize::bytes(700_000 / 8));
    let mut world = World::new(12);
    let speaker = world.join(clean(), 1, 1);
    let viewer = world.join(clean(), 1, 1);
    world.publish(speaker, &[UpKind::Microphone, UpKind::Camera]);
    assert!(world.run_until(CONNECT, everyone_is_connected));
    world.view(viewer, &[(speaker, 180)]);
    world.change_down_link(viewer, link);
    let mut answered = 0;
    for tick in 0..1_000_u32 {
        let now = world.now;
        world.clients[speaker].peer.send_audio(now, 30);
        world.clients[viewer].peer.send_audio(now, 30);
        if tick % 2 == 0 {
            // 200 kbit/s, and each two seconds 25 kB at once: 290 ms of the line.
            let asked = world.clients[speaker].key_frames_wanted.len();
            let is_key = tick % 100 == 0 || asked > answered;
            answered = asked;
            world.clients[speaker].peer.send_video(
                now,
                UpKind::Camera,
                0,
                is_key,
                if is_key { 25 } else { 1 },
                1_000,
            );
        }
        world.run(Duration::from_millis(20));
    }
    let from = world.now - Duration::from_secs(10);
    let heard = world.clients[viewer].received.iter().filter(|(at, it)| it.stamp.kind == 0 && *at > from);
    let heard: Vec<Instant> = heard.map(|(at, _)| *at).collect();
    let gap = heard.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(gap.is_some_and(|gap| gap < Duration::from_millis(150)), "sound waits for {gap:?}");
    let frames: BTreeSet<u32> = world.clients[viewer]
        .received
        .iter()
        .filter(|(_, it)| it.stamp.kind == 1)
        .map(|(_, it)| it.stamp.frame)
        .collect();
    assert!(frames.len() > 400, "{} of 500 frames are seen", frames.len());
}

/// Chromium sends two layers of a camera of 640 by 360 whatever is offered: whoever asks for the third gets the second,
/// soon, and nobody's line is blamed.
#[test]
fn a_layer_that_never_comes_is_made_up_for_by_the_next_smaller_one() {
    let mut world = World::new(12);
    let speaker = world.join(clean(), 1, 1);
    let viewer = world.join(clean(), 1, 1);
    world.publish(speaker, &[UpKind::Microphone, UpKind::Camera]);
    assert!(world.run_until(CONNECT, everyone_is_connected));
    // Alone with the smallest, until two layers were called for.
    world.view(viewer, &[(speaker, 720)]);
    let asked_at = world.now;
    everyone_talks_on(&mut world, Duration::from_secs(3), &[(0, 1)]);
    let wanted = |world: &World| {
        world.events.iter().rev().find_map(|(_, event)| match event {
            Event::Wanted { peer, ups } if *peer == world.clients[speaker].id => {
                ups.iter().find(|up| up.kind == UpKind::Camera).map(|up| up.layers.clone())
            }
            _ => None,
        })
    };
    assert_eq!(wanted(&world), Some(vec![true, true, true]), "the tallest, and the next in its place");
    everyone_talks_on(&mut world, Duration::from_secs(9), &[(0, 1), (1, 2)]);
    assert_eq!(
        wanted(&world),
        Some(vec![true, true, false]),
        "what never comes is not asked for at once again"
    );
    everyone_talks_on(&mut world, Duration::from_secs(30), &[(0, 1), (1, 2)]);
    let last = world.clients[viewer].received.iter().rev().find(|(_, it)| it.stamp.kind == 1);
    assert_eq!(last.map(|(_, it)| it.stamp.layer), Some(1));
    let lines: Vec<_> = world
        .events
        .iter()
        .filter_map(|(at, event)| match event {
            Event::Lines { lines, .. } if *at > asked_at => Some(lines.clone()),
            _ => None,
        })
        .collect();
    assert!(lines.is_empty(), "{lines:?}");
}
