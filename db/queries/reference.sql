-- name: InsertUnit :exec
INSERT INTO units (code, scale, name) VALUES (@code, @scale, @name);

-- name: ListUnits :many
SELECT code, scale, name, created_at FROM units ORDER BY code;
