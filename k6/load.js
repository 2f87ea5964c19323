// Does it meet its objectives under the traffic it is built for? Set RATE to the busiest hour's.
import { script } from './lib/run.js';

const { options, setup, visit, teardown, handleSummary } = script('load', { rate: 200, duration: '10m' }, [
  [0.1, 0],
  [1, 0.1],
  [1, 0.8],
  [0.1, 0.1],
]);
export { options, setup, teardown, handleSummary };
export default visit;
