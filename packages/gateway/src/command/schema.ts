/** `schema`: the JSON Schema of the configuration, for editors. */
import * as Command from "effect/cli/Command"
import * as Schema from "effect/Schema"
import * as Print from "../terminal/print.ts"
import { Config } from "./config.ts"

/** What the settings are, as editors show it. `docs/gateway.md` has the defaults and their reasons. */
const descriptions: Readonly<Record<string, string>> = {
  $schema: "Where the editor finds this schema",
  upstreams: "The providers' addresses by name; they replace the public ones of Anthropic, OpenAI and Gemini",
  places: "Where each model can be called: upstreams, each with its own name for the model, price and limits",
  placePolicy: "Whether a call goes where it starts first, or to the cheapest place that is fast enough",
  placeWithin: "How long a call may take; the cheapest place that is expected to answer in that time gets it",
  host: "The address to listen on; any but loopback needs a token",
  port: "The port to listen on; 0 takes a free one",
  token:
    "A secret that opens the page and the metrics, and calls if there are no keys; better in FLOODGATE_GATEWAY_TOKEN",
  adminToken: "A secret for operators, who may raise and reset caps; better in FLOODGATE_GATEWAY_ADMIN_TOKEN",
  hosts: "Additional names by which callers may reach a gateway without a token",
  limits: "The providers' limits: one set, or pools. Limits that are not set are learned",
  concurrency: "The most calls in flight for each pool",
  maxQueued: "The most waiting calls for each pool; further ones are answered with 429",
  maxPools: "The most accounts and classes of models in use at the same time",
  keys: "Keys of the gateway, as `key new NAME` of this command prints them: names and hashes, never the keys themselves",
  credentials: 'The credential of each upstream, for a gateway with keys: "env:NAME", "file:PATH", or "none"',
  rules: "Names, weights, priorities and caps of callers, by agent, key, model or headers",
  windows: "The shares of a subscription's 5-hour and 7-day windows for calls that are not interactive",
  prices: "Prices of models in dollars per million tokens",
  maxHold: "How long a call may wait; a number means seconds",
  silence: "How long the caller of a waiting call receives nothing",
  keepAlive: "The interval of the bytes that keep a waiting caller connected",
  timeout: "The longest time until the provider begins to answer",
  drain: "How long running calls may continue when the gateway closes",
  maxBodyBytes: "The largest body of a call, in bytes",
  maxHeldBytes: "The most memory for the bodies of all calls, in bytes",
  maxConnections: "The most open connections",
  streamUsage: "Whether Chat Completions streams are asked for their usage",
  idleTimeout: "The longest silence within a stream"
}

/** The JSON Schema of the configuration, made from the schema that reads it. */
const jsonSchema = (): object => {
  const { definitions, schema } = Schema.toJsonSchemaDocument(Config, { onExcessProperty: "error" })
  const properties = Object.entries((schema["properties"] ?? {}) as Readonly<Record<string, object>>)
  const described = properties.map(([name, property]) => {
    const description = Object.hasOwn(descriptions, name) ? descriptions[name] : undefined
    return [name, description === undefined ? property : { ...property, description }]
  })
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "The configuration of floodgate gateway",
    ...schema,
    properties: Object.fromEntries(described),
    ...(Object.keys(definitions).length > 0 && { $defs: definitions })
  }
}

/** The command. */
export const schemaCommand = (gateway: string) =>
  Command.make("schema", {}, () => Print.json(jsonSchema(), 2)).pipe(
    Command.withDescription(
      "Prints the JSON Schema of the configuration. Editors complete and check a file whose $schema names it."
    ),
    Command.withExamples([
      {
        command: `${gateway} schema > gateway.schema.json`,
        description: 'Then begin gateway.json with "$schema": "./gateway.schema.json"'
      }
    ])
  )
