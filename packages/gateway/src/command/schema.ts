/** `schema`: the JSON Schema of the configuration, for editors. */
import * as Command from "effect/cli/Command"
import * as Record from "effect/Record"
import * as Schema from "effect/Schema"
import * as Print from "../terminal/print.ts"
import { plain, type SettingRules } from "../settings/annotations.ts"
import { Config, rules } from "../settings/index.ts"

/** The JSON Schema of the configuration, made from the schema that reads it. */
const jsonSchema = (): object => {
  const { schema } = Schema.toJsonSchemaDocument(Config, { onExcessProperty: "error" })
  const described = Record.map(
    rules as Readonly<Record<string, SettingRules>>,
    ({ default: standard, text }, name) => ({
      ...(schema["properties"] as Readonly<Record<string, object>>)[name],
      description: plain(text),
      default: standard
    })
  )
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "The configuration of floodgate gateway",
    ...schema,
    properties: { $schema: { type: "string", description: "Where the editor finds this schema" }, ...described }
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
