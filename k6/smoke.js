// Does it work at all? A few requests of every kind; run it first, and after every deploy.
import { script } from './lib/run.js';

const { options, setup, visit, teardown, handleSummary } = script('smoke', { rate: 5, duration: '30s' }, [[1, 1]]);
export { options, setup, teardown, handleSummary };
export default visit;
