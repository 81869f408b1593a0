import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Config } from "../../src/settings/index.ts"
import { decode } from "../../src/settings/problems.ts"
import { gateway } from "../support/cli.ts"
import { services } from "../support/services.ts"

interface Schema {
  readonly type?: string
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: ReadonlyArray<string>
  readonly additionalProperties?: boolean | Schema
  readonly items?: Schema
  readonly anyOf?: ReadonlyArray<Schema>
  readonly description?: string
}

/** All objects with properties in a schema, by their place. */
const objectsIn = (schema: Schema, place = ""): ReadonlyArray<readonly [place: string, schema: Schema]> => [
  ...(schema.properties === undefined ? [] : [[place, schema] as const]),
  ...Object.entries(schema.properties ?? {}).flatMap(([name, each]) => objectsIn(each, `${place}.${name}`)),
  ...(typeof schema.additionalProperties === "object" ? objectsIn(schema.additionalProperties, `${place}.*`) : []),
  ...(schema.items === undefined ? [] : objectsIn(schema.items, `${place}[]`)),
  ...(schema.anyOf ?? []).flatMap((each) => objectsIn(each, place))
]

describe("floodgate-gateway schema", () => {
  it.effect("prints a schema that knows each setting, and no other", () =>
    Effect.gen(function* () {
      const { code, out } = yield* gateway("schema")
      assert.strictEqual(code, 0)
      const schema = JSON.parse(out) as Schema
      const objects = new Map(objectsIn(schema))
      // A misspelt setting is an error in the editor, as it is at the start.
      for (const [place, { additionalProperties }] of objects) assert.strictEqual(additionalProperties, false, place)
      assert.includeMembers([...objects.keys()], ["", ".keys[]", ".rules[]", ".rules[].cap", ".limits.pools.*"])
      assert.sameMembers([...objects.get(".keys[]")!.required!], ["name", "sha256"])
      assert.deepStrictEqual(Object.keys(objects.get(".keys[]")!.properties!), ["name", "sha256", "expires"])
      assert.isUndefined(schema.required)
      // What the schema knows is what the command reads.
      for (const name of Object.keys(schema.properties!)) {
        const result = decode(Config)({ [name]: Symbol("nothing") })
        assert.isTrue(Result.isFailure(result) && result.failure.every(({ kind }) => kind === "wrong"), name)
      }
      assert.match(schema.properties!["keys"]!.description!, /never the keys themselves/)
    }).pipe(Effect.provide(services()))
  )

  it("may be named in the configuration itself", () => {
    assert.isTrue(Result.isSuccess(decode(Config)({ $schema: "./gateway.schema.json", port: 1 })))
  })
})
