/** `schema`: the JSON Schema of the configuration, for editors. */
import * as Command from "effect/cli/Command"
import * as Record from "effect/Record"
import * as Schema from "effect/Schema"
import * as Print from "../terminal/print.ts"
import { docOf } from "../settings/docs.ts"
import { Config, everyRule } from "../settings/index.ts"

/** The JSON Schema of the configuration, made from the schema that reads it. */
const jsonSchema = (): object => {
  const { schema } = Schema.toJsonSchemaDocument(Config, { onExcessProperty: "error" })
  const described = Record.map(schema["properties"] as Readonly<Record<string, object>>, (property, name) => ({
    ...property,
    description: docOf(name).text,
    default: everyRule[name]?.default
  }))
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "The configuration of floodgate gateway",
    ...schema,
    properties: described
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
