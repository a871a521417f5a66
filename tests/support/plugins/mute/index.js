// The next version of the greeter, which cannot be loaded, for trying how a publish is taken back.
export default {
  id: "demo-greeter",
  name: "Demo greeter",
  description: "Cannot be loaded.",
  configSchema: { type: "object", additionalProperties: true, properties: {} },
  register() {
    throw new Error("this greeter has nothing to say");
  },
};
