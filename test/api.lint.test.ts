import { describe, expect, it } from "@effect/vitest"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { publicModules, root } from "./support/modules.ts"

// The lock on the public names. A change here is a change for users: update the snapshot with
// `npm test -- test/api.lint.test.ts -u` and add a changeset.
describe("public API", () => {
  for (const { file, name } of publicModules()) {
    it(`${name} exports the locked names`, async () => {
      const module = (await import(pathToFileURL(join(root, file)).href)) as Record<string, unknown>
      expect(Object.keys(module).sort().join("\n")).toMatchSnapshot()
    })
  }
})
