// Does it hold for hours? Finds what grows: memory, connections, latency. Watch the container's memory beside it.
import { script } from './lib/run.js';

const { options, setup, visit, teardown, handleSummary } = script('soak', { rate: 100, duration: '4h' }, [[1, 1]]);
export { options, setup, teardown, handleSummary };
export default visit;
