// A plugin that leaks, for trying how a fleet meets a bad release.
const PIECE = 24 << 20;
const kept = [];

export default {
  id: "demo-leak",
  name: "Demo leak",
  description: "Keeps 96 MiB more every second.",
  configSchema: { type: "object", additionalProperties: false, properties: {} },
  register(api) {
    let timer;
    api.registerService({
      id: "demo-leak",
      start() {
        timer = setInterval(() => kept.push(Buffer.alloc(PIECE, 1)), 250);
      },
      stop() {
        clearInterval(timer);
      },
    });
  },
};
