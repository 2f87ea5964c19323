// Does it live through a sudden crowd, and is it as before when the crowd has gone? Ten times the rate at once.
import { script } from './lib/run.js';

const { options, setup, visit, teardown, handleSummary } = script('spike', { rate: 100, duration: '5m', clients: 500 }, [
  [1, 0.25],
  [10, 0.03],
  [10, 0.25],
  [1, 0.03],
  [1, 0.44],
]);
export { options, setup, teardown, handleSummary };
export default visit;
