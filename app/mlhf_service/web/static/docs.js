// The API's reference: Swagger UI on our own OpenAPI document, asking no other host.

// A path is shown inside the button that opens its operation, where no link may be.
const plainPaths = ({ React }) => ({
  components: { DeepLink: ({ text }) => React.createElement("span", null, text) },
});

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  plugins: [plainPaths],
});
