/** Lets every call of a test go through Effect: `npm run test:effect`. */
import { OnlyEffect } from "../src/domain/syncForm.ts"

Object.defineProperty(OnlyEffect, "defaultValue", { value: () => true })
