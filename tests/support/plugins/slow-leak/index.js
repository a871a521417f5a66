// A plugin that leaks slowly, for trying whether a leak is called long before the ceiling.
const PIECE = 1 << 20;
const kept = [];

export default {
  id: "slow-leak",
  name: "Slow leak",
  description: "Keeps 1 MiB more every second.",
  configSchema: { type: "object", additionalProperties: false, properties: {} },
  register(api) {
    let timer;
    api.registerService({
      id: "slow-leak",
      start() {
        timer = setInterval(() => kept.push(Buffer.alloc(PIECE, 1)), 1000);
      },
      stop() {
        clearInterval(timer);
      },
    });
  },
};
