//! etcd's services.
