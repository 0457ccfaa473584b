// Where the client starts: the call logic, the real browser, and the view on top.

import { render } from 'preact';
import { browserEnvironment } from './core/browser';
import { createMeeting } from './core/meeting';
import './styles/base.css';
import './styles/pages.css';
import './styles/meeting.css';
import { App } from './ui/app';
import { keepDocumentLanguage } from './ui/l10n';

const root = document.getElementById('app');
if (!root) throw new Error('index.html has no #app');

keepDocumentLanguage(document.documentElement);
const meeting = createMeeting(browserEnvironment());
render(<App meeting={meeting.name.peek() === '' ? null : meeting} />, root);
