import { render } from 'preact';

render(<p>Asamblea</p>, document.getElementById('app')!);
