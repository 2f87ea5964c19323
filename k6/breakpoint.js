// Where does it end? The rate rises until an objective is missed, and there the run stops (exit code 99).
import { script } from './lib/run.js';

const usual = { rate: 5000, duration: '20m', clients: 1000 };
const { options, setup, visit, teardown, handleSummary } = script('breakpoint', usual, [[0, 0], [1, 1]], true);
export { options, setup, teardown, handleSummary };
export default visit;
