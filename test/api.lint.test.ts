import { assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { apiModules } from "../scripts/api.ts"
import { root } from "./support/modules.ts"

// docs/api.md is the lock on the public names, and test/docs.lint.test.ts compares it. Here it is held to what programs get.
describe("public API", () => {
  for (const { exports, file, name, parent } of apiModules()) {
    const title = parent === undefined ? name : `${parent}: ${name}`
    it(`${title} exports the names in docs/api.md`, async () => {
      const module = (await import(pathToFileURL(join(root, file)).href)) as object
      const values = exports.filter(({ isValue }) => isValue).map((one) => one.name)
      assert.deepStrictEqual(Object.keys(module).sort(), values.sort())
    })
  }
})
