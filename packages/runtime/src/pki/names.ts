/** Scheme and host of the URI that names a service in its certificate. */
export const SERVICE_URI_PREFIX = "covenant://service/";
