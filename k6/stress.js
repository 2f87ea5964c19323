// What happens beyond the expected traffic? Steps of the usual rate, 1 to 4 times, each held.
import { script } from './lib/run.js';

const { options, setup, visit, teardown, handleSummary } = script('stress', { rate: 200, duration: '20m', clients: 500 }, [
  [1, 0.05],
  [1, 0.2],
  [2, 0.02],
  [2, 0.2],
  [3, 0.02],
  [3, 0.2],
  [4, 0.02],
  [4, 0.2],
  [1, 0.02],
  [1, 0.07],
]);
export { options, setup, teardown, handleSummary };
export default visit;
