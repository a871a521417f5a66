// A plugin whose service never finishes starting, for trying how a fleet meets a bad release.
export default {
  id: "demo-hang",
  name: "Demo hang",
  description: "Never finishes starting.",
  configSchema: { type: "object", additionalProperties: false, properties: {} },
  register(api) {
    api.registerService({
      id: "demo-hang",
      start() {
        // In a rehearsal all is well: what is bad shows in service only.
        if (process.env.OPENCLAW_SKIP_CHANNELS === "1") return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      },
    });
  },
};
