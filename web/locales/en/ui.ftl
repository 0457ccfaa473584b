# English. Every message stands in locales/es/ui.ftl as well, under the same name.
# Wording: plain and calm; says what to do next; never blames.

product-name = Asamblea
page-title = { $meeting } · Asamblea
language = Language

## Start page

start-sentence = Meet face to face. Send a link, and everyone is in the room.
new-meeting = New meeting
meeting-name-or-link = Meeting name or link
open = Open
start-house = Runs on this server alone: no account, nothing sent to anyone else.
name-not-usable = Use letters, numbers and hyphens, or paste the whole link.

## Before joining

lobby-title = Ready to join?
your-name = Your name
your-name-hint = The others see it. You can leave it empty.
join = Join
joining = Joining…
preview-label = Your camera picture
camera-is-off = Your camera is off
camera-starting = Your camera is starting
microphone-level = Microphone level
microphone = Microphone
camera = Camera
speaker = Speaker
device-default = Default
device-unnamed = { $kind } { $number }
try-again = Try again
can-still-listen = You can still join to listen.

devices-asking = Your browser is asking whether it may use your microphone and camera. Choose “Allow” there.
microphone-denied = The browser does not allow the microphone here. Open the site permissions beside the address, allow the microphone, then try again.
microphone-missing = No microphone was found. Plug one in, then try again.
microphone-busy = Another program is using the microphone. Close it, then try again.
microphone-failed = The microphone did not start. Unplug it and plug it in again, or choose another one.
camera-denied = The browser does not allow the camera here. Open the site permissions beside the address, allow the camera, then try again.
camera-missing = No camera was found. Plug one in, then try again.
camera-busy = Another program is using the camera. Close it, then try again.
camera-failed = The camera did not start. Unplug it and plug it in again, or choose another one.

## In the meeting

mute-microphone = Mute microphone
unmute-microphone = Unmute microphone
turn-off-camera = Turn off camera
turn-on-camera = Turn on camera
share-screen = Share screen
stop-sharing = Stop sharing
leave = Leave
copy-link = Copy link
link-copied = Link copied
link-local = It works on this computer only: the server knows no address at which others reach it.
link-network = It works for others in your network.
link-certificate = Their browser will warn about the certificate that this computer made for itself.
copy-link-yourself = Copy this link and send it to the people you want to meet.
participants = Participants
settings = Settings
close = Close
meeting-controls = Meeting controls
tiles-label = People in view
guest = Guest
you = You
name-you = { $name } (you)
tile-screen = Screen of { $name }
state-muted = Microphone off
state-unmuted = Microphone on
state-camera-off = Camera off
state-camera-on = Camera on
state-speaking = Speaking
state-sharing = Sharing their screen
state-away = Connection lost
state-away-long = Connection lost. They may come back.
state-line-weak = Weak connection
picture-waiting = Waiting for the picture
picture-paused = Picture paused: slow line
picture-paused-short = Picture paused
pin-tile = Pin { $tile }
unpin-tile = Unpin { $tile }
full-screen = Full screen
tiles-previous = Previous people
tiles-next = More people
tiles-page = { $page } of { $pages }
alone = You are the first one here. Send the link to the people you want to meet.
you-are-sharing = You are sharing your screen.
participants-count =
    { $count ->
        [one] { $count } person is here
       *[other] { $count } people are here
    }
reconnecting = The connection was lost. Reconnecting; please stay on this page.
media-reconnecting = Sound and picture were interrupted. Restoring them…
own-line-weak = Your connection is weak: others may see a smaller picture of you, and you of them. The sound comes first.
own-line-lost = Hardly anything gets through on your connection right now. The meeting goes on by itself when it does.
sound-blocked = Your browser is holding back the sound.
turn-on-sound = Turn on sound

## Notices

notice-someone-joined = { $name } joined
notice-someone-left = { $name } left
notice-camera-lost = The camera was disconnected. You can choose another one in the settings.
notice-microphone-lost = The microphone was disconnected. You can choose another one in the settings.
notice-share-ended = Screen sharing has ended
notice-share-failed = The screen could not be shared. Try again, or choose another window.
notice-speaking-while-muted = Your microphone is off. Press M to unmute it.
notice-reconnected = You are connected again
notice-server-refused = The server could not do that. Try again in a moment.

## Settings

settings-devices = Microphone, camera and speaker
settings-keyboard = Keyboard
shortcuts-switch = Use one-key shortcuts
shortcuts-help = Press M for the microphone and V for the camera, except while you are typing. Escape closes what is open.

## After the meeting, or instead of it

left-title = You left the meeting
left-text = Thank you for being there. The link stays good if you want to go back.
rejoin = Rejoin
start-page = Start page
reload-page = Reload the page
open-secure-page = Open the secure page
problem-meeting-full-title = The meeting is full
problem-meeting-full-text = As many people as it holds are in it. Try again when someone has left.
problem-server-full-title = The server is full
problem-server-full-text = It holds as many meetings as it can. Try again in a few minutes.
problem-bad-name-title = No meeting can have this name
problem-bad-name-text = Names are made of letters, numbers, - and{ "\u00A0" }_. Check the link, or begin a new meeting.
problem-server-unreachable-title = The server cannot be reached
problem-server-unreachable-text = Check that you are connected to the network, then try again.
problem-outdated-client-title = There is a newer version
problem-outdated-client-text = The server was updated. Reload the page to get the new version.
problem-replaced-title = The meeting goes on in another tab
problem-replaced-text = It was opened again elsewhere in this browser. You can close this tab, or bring the meeting back here.
problem-no-webrtc-title = This browser cannot make calls
problem-no-webrtc-text = It has no WebRTC, or it is switched off. Open the link in a current Firefox, Chrome, Edge or Safari.
problem-insecure-context-title = This page is not secure yet
problem-insecure-context-text = Browsers share the microphone and camera only with pages that begin with https. The secure page may first show a warning about the certificate: that is expected on a local network.
problem-media-failed-title = Sound and picture did not get through
problem-media-failed-text = A network or firewall between you and the server holds them back. Try again, or use another network.
problem-server-stopping-title = The server was stopped
problem-server-stopping-text = It is being restarted or switched off. Try again in a minute.
problem-internal-title = Something went wrong on our side
problem-internal-text = The meeting may still be going on. Try again.
