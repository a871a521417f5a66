// A plugin that loads and does nothing, for trying how a capability is published.
export default {
  id: "demo-greeter",
  name: "Demo greeter",
  description: "Does nothing but load.",
  configSchema: { type: "object", additionalProperties: true, properties: {} },
  register() {},
};
